"""The von Mises-Fisher distribution on the unit sphere (Mardia & Jupp 2000, "Directional Statistics", sec. 9.3).

Shapes: n samples, B batch, d dimensions of the space around the sphere.
"""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions.base import Distribution
from attelbo.latent.spherical import CosineProfile, log_sphere_area


class VonMisesFisher(Distribution):
    """q(z) proportional to exp(kappa <mu, z>), with unit vectors mu (B, d) and kappa (B,), not negative.

    Densities are with respect to the area of the sphere. Samples are z = cos t mu + sin t v, with t from the inverse
    of its distribution function and v a uniform direction orthogonal to mu; no proposal is ever rejected. Their
    derivative with respect to kappa is that of the inverse; with respect to mu it is parallel transport of z with mu,
    without rotation around it, which preserves the distribution and is the shortest such motion. So gradients of
    E_q[f(z)] are unbiased without the correction term of Davidson et al. 2018 (eq. 16).
    """

    def __init__(self, direction: Tensor, kappa: Tensor) -> None:
        self.direction = full_precision(direction)
        self.kappa = full_precision(kappa)
        self.profile = CosineProfile(self.kappa, direction.shape[-1])

    @property
    def mean(self) -> Tensor:
        """E_q[z] = A(kappa) mu, inside the sphere."""
        return (1 - self.profile.gap).unsqueeze(-1) * self.direction

    @property
    def center(self) -> Tensor:
        return self.direction

    @property
    def divergence_from_uniform(self) -> Tensor:
        """KL(q || the uniform distribution on the sphere), (B,), nats."""
        return -self.kappa * self.profile.gap - self.profile.log_mean_exp

    def rsample(self, n: int) -> Tensor:
        return self._sample(n)[0]

    def log_prob(self, z: Tensor) -> Tensor:
        # <mu, z> - 1 of unit vectors, without its cancellation where kappa is large.
        return self._log_density((z - self.direction).square().sum(-1) / 2)

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        z, below_one = self._sample(n)
        return z, self._log_density(below_one)

    def stop_gradient(self) -> Self:
        return type(self)(self.direction.detach(), self.kappa.detach())

    def _log_density(self, below_one: Tensor) -> Tensor:
        """log q(z), (n, B), of 1 - <mu, z>, (n, B)."""
        area = log_sphere_area(self.direction.shape[-1])
        return -self.kappa * below_one - self.profile.log_mean_exp - area

    def _sample(self, n: int) -> tuple[Tensor, Tensor]:
        """z (n, B, d) and 1 - <mu, z> (n, B)."""
        cosine, sine, below_one = self.profile.rsample(n)
        mu, fixed = self.direction, self.direction.detach()
        noise = torch.randn((n, *mu.shape), dtype=mu.dtype, device=mu.device)
        v = F.normalize(noise - (noise * fixed).sum(-1, keepdim=True) * fixed, dim=-1)
        v = v - (v * mu).sum(-1, keepdim=True) * fixed  # the term subtracted is zero; its derivative rotates v with mu
        return cosine.unsqueeze(-1) * mu + sine.unsqueeze(-1) * v, below_one
