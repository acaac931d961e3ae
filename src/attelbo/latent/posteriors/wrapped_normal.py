"""The wrapped normal posterior on the Poincare ball (Mathieu et al. 2019, "Continuous Hierarchical Representations with
Poincare Variational Auto-Encoders", arXiv:1901.06033; Nagano et al. 2019, arXiv:1902.02992).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.checks import check_at_least, check_positive
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import WrappedNormal
from attelbo.latent.hyperbolic import length
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.spaces import Ball

_FARTHEST = 12.0
"""The largest distance of m from the origin, times sqrt(c). A sample at the distance r, rounded in its coordinates, is
off by that rounding times exp(r): 0.01 here in float32. From 20 on its density as a given z would be hundreds of nats
off. The prior is 72 nats below its top there."""


class WrappedNormalPosterior(Posterior):
    """q(z|x): a normal around the origin of hyperbolic space, moved to m(h); (m, log std) one linear map of h.

    log std is clamped to [-10, 10], and m to a distance of 12 / sqrt(c) from the origin, in its direction.

    z is written as its logarithmic map at the origin (``attelbo.latent.hyperbolic``), and that is what the decoder
    sees: equal steps along a ray from the origin are equal distances, while in the ball all distant points crowd at the
    border. Ours differs from Mathieu et al., whose decoder begins with a layer of hyperbolic distances to hyperplanes;
    their alternative on the logarithmic map is the ordinary decoder here.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        curvature: c; the curvature is -c.

    Raises:
        ValueError: latent_dim below 1, or a curvature that is not positive and finite.
    """

    distribution = WrappedNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int, curvature: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        check_positive(curvature=curvature)
        self.latent_shape = (latent_dim,)
        self.curvature = curvature
        self.head = nn.Linear(math.prod(in_shape), 2 * latent_dim)

    @property
    def space(self) -> Ball:
        return Ball(self.latent_shape, self.curvature)

    def forward(self, h: Tensor) -> WrappedNormal:
        mu, log_std = full_precision(self.head(flat_features(h))).chunk(2, dim=-1)
        mu = mu * (_FARTHEST / math.sqrt(self.curvature) / length(mu)).clamp(max=1).unsqueeze(-1)
        return WrappedNormal(mu, bound_log_std(log_std), self.curvature)
