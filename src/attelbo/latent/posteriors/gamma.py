"""The gamma posterior (Naesseth, Ruiz, Linderman & Blei 2017, arXiv:1610.05683; samples: Figurnov, Mohamed & Mnih 2018,
arXiv:1805.08498).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import Gamma
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.spaces import Positive

LEAST = 0.2
"""The least concentration: with it a sample falls below the smallest float32 with probability 1e-8."""


class GammaPosterior(Posterior):
    """q(z_d|x) = Gamma(a, b), a = 0.2 + softplus(u), b = a exp(-v), with (u, v) one linear map of the flattened
    features h: v is the logarithm of the mean a / b, clamped to [-10, 10].

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = Gamma

    def __init__(self, in_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.head = nn.Linear(math.prod(in_shape), 2 * latent_dim)

    @property
    def space(self) -> Positive:
        return Positive(self.latent_shape)

    def forward(self, h: Tensor) -> Gamma:
        shape, log_mean = full_precision(self.head(flat_features(h))).chunk(2, dim=-1)
        concentration = LEAST + F.softplus(shape)
        return Gamma(concentration, concentration * (-bound_log_std(log_mean)).exp())
