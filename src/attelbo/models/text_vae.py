"""Variational autoencoders of texts (Bowman et al. 2016, "Generating Sentences from a Continuous Space").

    x -- encoder --> h -- posterior --> q(z|x) -- sample --> z, x_<t -- decoder --> logits of x_t

A text is BOS, tokens, EOS and then padding. log p(x|z) is the sum over its tokens, including EOS, each given the true
ones before it (teacher forcing); values for each text are in nats, and values for each token are ratios of sums.

Shapes: K samples of z for each x, B batch, T tokens of x, U of a generated text, V vocabulary, D numbers of z, F
features after each token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attelbo.data.batch import BOS, EOS, PAD, UNK, Batch
from attelbo.latent.likelihoods.tokens import CategoricalTokens
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Terms, compute_and_reset
from attelbo.models.generation import Sampling
from attelbo.models.vae import VariationalAutoencoder
from attelbo.networks import TextDecoder

GREEDY = Sampling(temperature=0)


class TextVAE(VariationalAutoencoder):
    """A VAE whose decoder is a language model conditioned on z. See ``models.text_vaes`` for how a configuration
    becomes one.

    Args:
        word_dropout: the probability with which, in training, an input token of the decoder is replaced by UNK (section
            3.1.2 of the paper); the encoder's input and the targets are unchanged.
        **parts: those of :class:`VariationalAutoencoder`; the encoder takes (B, T), the decoder is a ``TextDecoder``,
            the likelihood one of tokens.
    """

    has_dimensions = False
    decoder: TextDecoder  # pyright: ignore[reportIncompatibleVariableOverride]
    likelihood: CategoricalTokens  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, word_dropout: float = 0.0, **parts: Any) -> None:
        super().__init__(**parts)
        self.word_dropout = word_dropout
        self.lengths = SampleMean(("tokens",))

    # -- from a batch to its evidence ---------------------------------------------------------------

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Not available, since p(x|z) is autoregressive: see :meth:`explain` and :meth:`write`."""
        raise NotImplementedError("a text is decoded token by token, each given those before it")

    def explain(self, z: Tensor, x: Tensor, y: Tensor | None = None, *, steady: bool = False) -> tuple[Tensor, None]:
        """log p(x|z), (K, B), of z (K, B, *E) and x (B, T)."""
        shape = z.shape[:2]
        told = self._with_dropout(x[:, :-1].expand(len(z), -1, -1))  # (K, B, T - 1)
        features = self.decoder(z.flatten(0, 1).flatten(1), told.flatten(0, 1)).unflatten(0, shape)
        targets = x[:, 1:]
        if self.training and not _shapes_may_vary(x.device):
            return self.likelihood.log_prob(self.decoder.output(features), targets), None
        # Logits of padding would be most of the cost.
        targets = targets.expand(len(z), -1, -1)
        there = targets != PAD
        log_p = self.likelihood.log_prob_of_tokens(self.decoder.output(features[there]), targets[there])
        return log_p.new_zeros(targets.shape).masked_scatter_(there, log_p).sum(-1), None

    def _with_dropout(self, told: Tensor) -> Tensor:
        """Tokens (...), some of which are replaced by UNK in training; special tokens are kept."""
        if not self.training or self.word_dropout == 0:
            return told
        dropped = (torch.rand(told.shape, device=told.device) < self.word_dropout) & (told > EOS)
        return torch.where(dropped, UNK, told)

    # -- evaluation ---------------------------------------------------------------------------------

    @staticmethod
    def n_predicted(x: Tensor) -> Tensor:
        """The tokens of each text x (B, T) that are predicted, (B,): all but BOS."""
        return (x[:, 1:] != PAD).sum(1)

    def evaluation_step(self, batch: Batch) -> None:
        super().evaluation_step(batch)
        self.lengths.update({"tokens": self.n_predicted(batch.x)})

    def evaluation_results(self) -> Terms:
        results = super().evaluation_results()
        tokens = compute_and_reset(self.lengths)["tokens"]
        if self.bounded:
            results["kl_per_token"] = results["kl"] / tokens
            results["perplexity_bound"] = (-results["elbo"] / tokens).exp()
        return results | {"tokens": tokens}

    @property
    def measures(self) -> Sequence[Measure]:
        return (
            *(measure for measure in super().measures if measure.key not in ("perplexity", "code_usage")),
            Measure("kl_per_token", "KL per token", "nats", 4),
            Measure("perplexity_bound", "perplexity bound", "tokens, from the ELBO", better="less"),
            Measure("tokens", "tokens", "of a text, its end among them"),
        )

    # -- what one does with a trained model --------------------------------------------------------

    def decoder_labels(self, labels: Sequence[str]) -> list[str]:
        """The labels of the decoder's input places, given those of a text's tokens."""
        return [*["(z)"] * self.decoder.n_before, *labels[:-1]]

    @torch.no_grad()
    def write(self, z: Tensor, sampling: Sampling = GREEDY) -> Tensor:
        """A text for each z (n, D): (n, U), from BOS to EOS and then PAD; without EOS where it reaches the length of
        the data.

        Args:
            z: flat, as ``encode`` gives it.
            sampling: how tokens are drawn; the likeliest each time by default.
        """
        room = self.likelihood.data_shape[0]
        writing = self.decoder.begin(z, room)
        latest = torch.full((len(z),), BOS, device=z.device)
        ended = torch.zeros_like(latest, dtype=torch.bool)
        text = [latest]
        for _ in range(room):
            logits = writing.advance(latest)
            logits[:, [PAD, BOS]] = -torch.inf
            latest = torch.where(ended, PAD, sampling.draw(logits))
            text.append(latest)
            ended = ended | (latest == EOS)
            if ended.all():
                break
        return torch.stack(text, 1)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """A greedily decoded text at the center of the posterior of each x (B, T): (B, U)."""
        return self.write(self.encode(x, y))

    @torch.no_grad()
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """A greedily decoded text for each z (n, D): (n, U)."""
        return self.write(z)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, sampling: Sampling = GREEDY) -> Tensor:
        """n texts, z from the prior: (n, U)."""
        return self.write(self.sample_prior(n, y).flatten(1), sampling)


def _shapes_may_vary(device: torch.device) -> bool:
    """Whether shapes in training may depend on values, as those of minibatches do on a CPU, which are cropped to their
    longest rows; elsewhere they would cost a synchronization, and neither graphs nor stacked replicas allow it."""
    return device.type == "cpu"
