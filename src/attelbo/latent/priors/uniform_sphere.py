"""The uniform prior on the unit sphere (Davidson et al. 2018, "Hyperspherical Variational Auto-Encoders", sec. 3.2).

Shapes: n samples, B batch, d dimensions of the space around the sphere.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.distributions import Distribution, VonMisesFisher
from attelbo.latent.priors.base import FixedPrior
from attelbo.latent.spaces import Sphere
from attelbo.latent.spherical import log_sphere_area


class UniformSphere(FixedPrior):
    """p(z) = 1 / area, with respect to the area. The KL of a von Mises-Fisher posterior is exact.

    Args:
        latent_shape: (d,).
    """

    spaces = (Sphere,)

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.full_like(z[..., 0], -log_sphere_area(z.shape[-1]))

    def sample(self, n: int) -> Tensor:
        noise = torch.randn((n, *self.latent_shape), dtype=self._zero.dtype, device=self._zero.device)
        return F.normalize(noise, dim=-1)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || p) of a von Mises-Fisher posterior, (B, 1), nats."""
        return q.divergence_from_uniform.unsqueeze(-1) if isinstance(q, VonMisesFisher) else None
