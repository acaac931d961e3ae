"""Shared by autoregressive priors over codes: p(codes) = prod_t p(code_t | those before it), in row-major order.

Shapes: n samples, B batch, N = n B rows, S the positions of codes, T their number, K codes, C channels.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.priors.base import Prior
from attelbo.latent.spaces import Codes


class AutoregressiveCodes(Prior):
    """A prior over codes that predicts the code at each position from those before it.

    Trained together with an autoencoder it follows the codes but does not influence them: no gradient passes through
    codes.

    Args:
        space: S and K.
        channels: C, of the embeddings of codes and positions.
    """

    spaces = (Codes,)
    _first: Tensor

    def __init__(self, space: Codes, channels: int) -> None:
        super().__init__()
        self.latent_shape = space.shape
        self.n_codes = space.n_codes
        self.n_positions = math.prod(space.shape)
        # Learned embeddings of positions and codes; each codebook has its own.
        self.position = nn.Parameter(0.1 * torch.randn(self.n_positions, channels))
        self.code = nn.Parameter(torch.randn(space.n_codebooks * self.n_codes, channels))
        first = self.n_codes * (torch.arange(self.n_positions) % space.n_codebooks)
        self.register_buffer("_first", first, persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        codes = z.flatten(0, 1).flatten(1)  # (N, T)
        return self.log_prob_by(self.logits(codes), codes).unflatten(0, z.shape[:2])

    @staticmethod
    def log_prob_by(logits: Tensor, codes: Tensor) -> Tensor:
        """log p of codes (N, T), (N,), nats, where these are the logits (N, T, K) at each position."""
        log_probs = full_precision(logits).log_softmax(-1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).sum((-2, -1))

    @abstractmethod
    def logits(self, codes: Tensor) -> Tensor:
        """Unnormalized log-probabilities of the code at each position, (N, T, K), of codes (N, T)."""

    def embed(self, codes: Tensor, start: int = 0) -> Tensor:
        """The embeddings of codes (N, t) at the positions from ``start`` on, (N, t, C)."""
        return nn.functional.embedding(codes + self._first[start : start + codes.shape[1]], self.code)


def draw(logits: Tensor) -> Tensor:
    """One code for each row of unnormalized log-probabilities (N, K): (N,)."""
    return torch.multinomial(full_precision(logits).softmax(-1), 1)[:, 0]
