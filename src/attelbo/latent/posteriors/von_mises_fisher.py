"""The von Mises-Fisher posterior (Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders", arXiv:1804.00891).

Shapes: B batch, F the encoder's output shape, d = latent_dim.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions import VonMisesFisher
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.spaces import Sphere


class VonMisesFisherPosterior(Posterior):
    """q(z|x) = vMF(m / |m|, 1 + (d - 1) softplus(k)), with (m, k) one linear map of the flattened features h.

    kappa is above 1, as in the authors' code: at kappa = 0 the direction would get no gradient. Theirs has no factor
    d - 1. The width of q depends on kappa / (d - 1): without the factor it starts almost uniform for large d, and the
    decoder learns to ignore z.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: d; z lives on the sphere in R^d, which has d - 1 dimensions.

    Raises:
        ValueError: latent_dim below 2.
    """

    distribution = VonMisesFisher

    def __init__(self, in_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_at_least(2, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.head = nn.Linear(math.prod(in_shape), latent_dim + 1)

    @property
    def space(self) -> Sphere:
        return Sphere(self.latent_shape)

    def forward(self, h: Tensor) -> VonMisesFisher:
        head = full_precision(self.head(flat_features(h)))
        (dim,) = self.latent_shape
        return VonMisesFisher(F.normalize(head[:, :-1], dim=-1), 1 + (dim - 1) * F.softplus(head[:, -1]))
