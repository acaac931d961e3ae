"""The full-covariance normal posterior (Kingma & Welling 2019, "An Introduction to VAEs", sec. 2.5.1).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import FullNormal
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.triangular import triangular, triangular_places


class FullNormalPosterior(Posterior):
    """q(z|x) = N(m(h), L(h) L(h)^T), with m, log diag L and the rest of L one linear map of the features.

    The rows of the map that give the entries below the diagonal start at zero, so that training starts
    from a diagonal posterior: with the usual initialization the variance of the later dimensions would
    grow with D. The diagonal is exp of a value clamped to [-10, 10].

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z; the head has D (D + 3) / 2 outputs.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = FullNormal
    _places: Tensor

    def __init__(self, in_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.register_buffer("_places", triangular_places(latent_dim, "below"), persistent=False)
        self._sizes = [latent_dim, latent_dim, latent_dim * (latent_dim - 1) // 2]
        self.head = nn.Linear(math.prod(in_shape), sum(self._sizes))
        with torch.no_grad():
            self.head.weight[2 * latent_dim :].zero_()
            self.head.bias[2 * latent_dim :].zero_()

    def forward(self, h: Tensor) -> FullNormal:
        mean, log_diagonal, below = full_precision(self.head(flat_features(h))).split(self._sizes, dim=-1)
        diagonal = bound_log_std(log_diagonal).exp()
        return FullNormal(mean, triangular(diagonal, below, self._places))
