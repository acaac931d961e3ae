"""Feature maps: what replaces the exponential in linear attention.

Katharopoulos, Vyas, Pappas & Fleuret 2020, "Transformers are RNNs", arXiv:2006.16236, eq. 7 (elu + 1);
Choromanski et al. 2021, "Rethinking Attention with Performers", arXiv:2009.14794, lemma 1 and sec. 2.4 (FAVOR+).

Shapes: B batch, N heads, L tokens, D features of a head, F features after the map.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.checks import check_at_least


class FeatureMap(nn.Module, ABC):
    """phi: (..., D) -> (..., F), not negative: the weight of a key is phi(q) . phi(k) over its sum over the keys.

    A factor of a query, and one that all keys share, cancel in that ratio. So a map may return the logarithm of a
    factor apart, where phi itself would overflow or underflow.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (..., D) -> u (..., F) and the logarithm of a factor c (..., 1): phi(x) = c u. None: c is 1.

        The same for queries and keys; no gradient goes through c, u's is that of phi.
        """
        ...


class EluFeatures(FeatureMap):
    """phi(x) = elu(x) + 1, by feature: F = D. Nothing is scaled, as in the paper."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return F.elu(x) + 1, None


class PositiveRandomFeatures(FeatureMap):
    """FAVOR+: phi(x) = exp(w_f . x' - |x'|^2 / 2) / sqrt(F) with x' = sqrt(scale) x and w_f ~ N(0, I), F of them.

    The mean of phi(q) . phi(k) over w is exp(scale q . k), exactly: softmax attention, up to the noise of the draw. Its
    relative variance is about (exp(|q' + k'|^2) - 1) / F: for long queries and keys the estimate is mostly noise.
    Blocks of D of the w_f are orthogonal, with the lengths of independent ones, which leaves the mean unchanged and
    reduces the variance.

    The w_f are drawn at construction, and again only by ``redraw``; they are kept in the checkpoint.

    Args:
        dim: D, of a head.
        n_features: F; D log D or more for a good estimate.
        scale: of the scores; None: 1 / sqrt(D).

    Raises:
        ValueError: a size below 1, or a scale that is not positive.
    """

    directions: Tensor
    """w, (F, D)."""

    def __init__(self, dim: int, n_features: int = 64, *, scale: float | None = None) -> None:
        super().__init__()
        check_at_least(1, dim=dim, n_features=n_features)
        self.scale = dim**-0.5 if scale is None else scale
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.register_buffer("directions", torch.empty(n_features, dim))
        self.redraw()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = math.sqrt(self.scale) * x
        projected = x @ self.directions.to(x.dtype).mT
        log_phi = projected - 0.5 * x.square().sum(-1, keepdim=True)  # less log sqrt(F), which all share
        largest = log_phi.detach().amax(-1, keepdim=True)
        return (log_phi - largest).exp(), largest

    @torch.no_grad()
    def redraw(self) -> None:
        """Draw new w_f with the default generator."""
        n_features, dim = self.directions.shape
        n_blocks = -(-n_features // dim)
        like = {"dtype": self.directions.dtype, "device": self.directions.device}
        q, r = torch.linalg.qr(torch.randn(n_blocks, dim, dim, **like))
        # The signs make Q uniform over the orthogonal matrices (Mezzadri 2007, arXiv:math-ph/0609050).
        rows = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).flatten(0, 1)[:n_features]
        lengths = torch.randn(n_features, dim, **like).norm(dim=-1, keepdim=True)
        self.directions.copy_(lengths * rows)
