"""The smallest model that is no VAE, on tokens: transition probabilities, learned from sequences of a Markov chain."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.data import ResidentDataModule
from attelbo.data.batch import Batch, DataSpec, Split
from attelbo.data.module import Splits
from attelbo.data.resident import ResidentSplit
from attelbo.metrics import Measure, SampleMean
from attelbo.models import Model, Terms
from attelbo.training.callbacks import Exhibit

N_TOKENS, LENGTH = 4, 8
ROWS: dict[Split, int] = {"train": 120, "validation": 30, "test": 401}
TRUE_ENTROPY = -(0.85 * math.log(0.85) + 3 * 0.05 * math.log(0.05))
"""Of the next token, nats: it is the following one with probability 0.8 + 0.2 / 4."""


class Chains(ResidentDataModule):
    """Rows of a chain that goes on to the following token with probability 0.8 and else anywhere."""

    def __init__(self, name: str, seed: int, batch_size: int) -> None:
        super().__init__("", seed, batch_size, eval_batch_size=7, minibatches_per_block=4)
        self.name = name

    @property
    def spec(self) -> DataSpec:
        return DataSpec(self.name, (LENGTH,), "tokens", n_tokens=N_TOKENS)

    def _content(self) -> tuple[Any, ...]:
        return ()

    def _load(self) -> Splits:
        generator = torch.Generator().manual_seed(0)
        splits: Splits = {}
        for split, n in ROWS.items():
            steps = torch.randint(N_TOKENS, (n, LENGTH + 1), generator=generator)
            steps = torch.where(torch.rand(steps.shape, generator=generator) < 0.8, 1, steps)
            splits[split] = ChainSplit(steps.cumsum(1) % N_TOKENS)
        return splits

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join("a<b&"[token] for token in tokens)


class ChainSplit(ResidentSplit):
    """Tokens (N, T + 1)."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def materialize(self, index: Tensor) -> Batch:
        tokens = self.tokens[index]
        return Batch(tokens[:, :-1], tokens[:, 1:], index)


class Chain(Model):
    """log p(next token | token), a table."""

    def __init__(self, data: DataSpec, optimizer: Spec, scheduler: Spec) -> None:
        super().__init__(optimizer, scheduler)
        assert data.n_tokens is not None
        self.table = nn.Embedding(data.n_tokens, data.n_tokens)
        nn.init.zeros_(self.table.weight)
        self.means = SampleMean(["loss"])

    def _nats(self, batch: Batch) -> Tensor:
        """(B, T)."""
        assert batch.y is not None
        return -self.table(batch.x).log_softmax(-1).gather(-1, batch.y.unsqueeze(-1)).squeeze(-1)

    def losses(self, batch: Batch) -> Terms:
        return {"loss": self._nats(batch).mean()}

    def evaluation_step(self, batch: Batch) -> None:
        self.means.update({"loss": self._nats(batch).flatten()})

    def evaluation_results(self) -> Terms:
        loss = self.means.compute()["loss"]
        self.means.reset()
        return {"loss": loss, "perplexity": loss.exp()}

    @property
    def measures(self) -> Sequence[Measure]:
        return Measure("loss", "loss", "nats per token", 4), Measure("perplexity", "perplexity", "of the next token", 3)

    def write(self, length: int) -> list[int]:
        """A draw from the chain."""
        tokens = [0]
        for _ in range(length):
            tokens.append(int(torch.multinomial(self.table.weight[tokens[-1]].softmax(-1), 1)))
        return tokens


class Walk(Exhibit):
    """``walk``: a text of tokens."""

    def serves(self, model: nn.Module, data: Any) -> bool:
        return isinstance(model, Chain)

    def works(self, model: Chain, data: Chains) -> Mapping[str, str]:
        return {"walk": data.decode(model.write(50))}
