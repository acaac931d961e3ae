"""Multi-query associative recall: keys and their values, and later the keys again, each asking for its value.

Source: Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra & Re 2024, "Zoology: measuring and improving recall in
efficient language models", arXiv:2312.04927, section 4 and appendix on synthetics: vocabulary 8,192; (T, pairs) of
(64, 4), (128, 8), (256, 16), (512, 64); a query stands at a distance that follows a power law.

Between queries stands token 0, as in the configuration of the published figure. The published code can also put any
tokens there, which may be keys of the same row, with two values then (its issue 29); here noise is all other tokens of
the vocabulary, equally likely, so that every row has one answer.

Shapes: n rows, P pairs, G places for queries, T tokens.
"""

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import IGNORE, DataSpec
from attelbo.data.tasks.base import Task


class AssociativeRecall(Task):
    """x: key, value, key, value, ..., then each key once more, with nothing or noise between; y: its value there.

    The first half of the vocabulary, but for token 0, are keys, the second half values; no key and no value is in a row
    twice. Queries stand at the even places behind the pairs, at place g = 1 .. G of these with probability proportional
    to g^(power - 1).

    Args:
        length: T.
        n_pairs: P.
        n_tokens: in the vocabulary.
        power: of the power law; small: most queries come soon.
        noise: whether other tokens stand between queries, values of other keys among them, in place of token 0.

    Raises:
        ValueError: an odd number, too short a row, too few tokens, or a power that is not positive.
    """

    def __init__(
        self, length: int = 64, n_pairs: int = 4, n_tokens: int = 8192, power: float = 0.01, noise: bool = False
    ) -> None:
        check_at_least(1, n_pairs=n_pairs)
        check_at_least(4 * n_pairs, length=length)
        check_at_least(2 * n_pairs + 2, n_tokens=n_tokens)
        for name, number in (("length", length), ("n_tokens", n_tokens)):
            if number % 2:
                raise ValueError(f"{name} must be even, got {number}")
        if power <= 0:
            raise ValueError(f"power must be positive, got {power}")
        self.length = length
        self.n_pairs = n_pairs
        self.n_tokens = n_tokens
        self.power = power
        self.noise = noise

    def spec(self, name: str) -> DataSpec:
        return DataSpec(name, (self.length,), "tokens", n_tokens=self.n_tokens, answer_length=self.n_pairs)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        half, pairs = self.n_tokens // 2, 2 * self.n_pairs
        keys = 1 + distinct(n, self.n_pairs, half - 1, generator)
        values = half + distinct(n, self.n_pairs, half, generator)
        places = pairs + 2 * self._gaps(n, generator)
        if self.noise:
            x = others(keys, self.n_tokens, self.length, generator)
        else:
            x = torch.zeros(n, self.length, dtype=torch.int64)
        x[:, 0:pairs:2], x[:, 1:pairs:2] = keys, values
        x.scatter_(1, places, keys)
        return x, torch.full_like(x, IGNORE).scatter_(1, places, values)

    def _gaps(self, n: int, generator: torch.Generator) -> Tensor:
        """A place 0 .. G - 1 for the query of each pair (n, P), drawn without replacement: the largest of Gumbel noise
        plus log-probability, in their order, are such draws (Yellott 1977)."""
        log_weights = (self.power - 1) * torch.arange(1, (self.length - 2 * self.n_pairs) // 2 + 1).double().log()
        uniform = torch.rand(n, len(log_weights), generator=generator, dtype=torch.float64)
        return (log_weights - (-uniform.log()).log()).topk(self.n_pairs, 1).indices


def distinct(n: int, k: int, size: int, generator: torch.Generator) -> Tensor:
    """n times k different numbers of 0 .. size - 1, in random order: (n, k), by Floyd's algorithm (Bentley & Floyd
    1987)."""
    picks = torch.empty(k, n, dtype=torch.int64)
    for place, last in enumerate(range(size - k, size)):
        candidate = torch.randint(last + 1, (n,), generator=generator)
        taken = (picks[:place] == candidate).any(0)
        picks[place] = torch.where(taken, last, candidate)
    return picks.T.gather(1, torch.rand(n, k, generator=generator).argsort(1))


def others(excluded: Tensor, size: int, length: int, generator: torch.Generator) -> Tensor:
    """Numbers of 0 .. size - 1 that are not among the row's ``excluded`` (n, k) different ones, equally likely:
    (n, length)."""
    n, k = excluded.shape
    drawn = torch.randint(size - k, (n, length), generator=generator)
    # The m-th number (m = 0, 1, ...) that is left has as many excluded ones below it as have no more than m left below.
    left_below = excluded.sort(1).values - torch.arange(k)
    return drawn + torch.searchsorted(left_below, drawn, right=True)
