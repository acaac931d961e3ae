"""The normal posterior with a diagonal plus low-rank covariance (Rezende, Mohamed & Wierstra 2014, "Stochastic
Backpropagation", sec. 4.3).

Shapes: B batch, F the encoder's output shape, D = latent_dim, R rank.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import LowRankNormal
from attelbo.latent.posteriors.base import Posterior, flat_features

_DIRECTION_BOUND = 100.0
"""Entries of V are clamped to [-100, 100]: where all R columns are driven to the bound they are parallel, and float32
still tells I + V^T V from a singular matrix."""


class LowRankNormalPosterior(Posterior):
    """q(z|x) = N(m(h), diag(s(h)^2) + U(h) U(h)^T), with m, log s and V = diag(s)^-1 U one linear map of the features.

    The paper parametrizes the precision, with one direction. V starts at a tenth of the usual initialization: near a
    diagonal posterior, but not at V = 0, where its gradient vanishes in expectation. ``log s`` is clamped to [-10, 10].

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z; the head has D (R + 2) outputs.
        rank: R, columns of U; at most D are used, since more would be redundant.

    Raises:
        ValueError: latent_dim or rank below 1.
    """

    distribution = LowRankNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int, rank: int = 4) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim, rank=rank)
        self.latent_shape = (latent_dim,)
        self.rank = min(rank, latent_dim)
        self.head = nn.Linear(math.prod(in_shape), latent_dim * (self.rank + 2))
        with torch.no_grad():
            self.head.weight[2 * latent_dim :].mul_(0.1)
            self.head.bias[2 * latent_dim :].mul_(0.1)

    def forward(self, h: Tensor) -> LowRankNormal:
        (dim,) = self.latent_shape
        sizes = [dim, dim, dim * self.rank]
        mean, log_std, directions = full_precision(self.head(flat_features(h))).split(sizes, dim=-1)
        return LowRankNormal(
            mean,
            bound_log_std(log_std),
            directions.clamp(-_DIRECTION_BOUND, _DIRECTION_BOUND).unflatten(-1, (dim, self.rank)),
        )
