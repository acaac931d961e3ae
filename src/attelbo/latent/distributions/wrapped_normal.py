"""The wrapped normal distribution on the Poincare ball (Nagano et al. 2019, "A Wrapped Normal Distribution on
Hyperbolic Space for Gradient-Based Learning", arXiv:1902.02992; Mathieu et al. 2019, arXiv:1901.06033, sec. 3.1).

Shapes: n samples, B batch, D dimensions.
"""

from typing import Self

import torch
from torch import Tensor

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions.base import Distribution
from attelbo.latent.distributions.normal import DiagonalNormal
from attelbo.latent.hyperbolic import log_volume, translate


class WrappedNormal(Distribution):
    """The distribution of z = mu (+) v, v ~ N(0, diag(std^2)) in the tangent space of the origin.

    Points are written as ``attelbo.latent.hyperbolic`` has it, mu and z (B, D) any real numbers. The density is with
    respect to the volume of hyperbolic space (the Riemannian measure), as in eq. 12 of Mathieu et al.:
    log q(z) = log N(v; 0, diag(std^2)) - (D - 1) log(sinh r / r), r = sqrt(c) |v|, the geodesic distance of z from mu.

    Args:
        mu: (B, D).
        log_std: (B, D).
        curvature: c > 0; the space has the curvature -c.
    """

    def __init__(self, mu: Tensor, log_std: Tensor, curvature: float) -> None:
        self.mu = full_precision(mu)
        self.tangent = DiagonalNormal(torch.zeros_like(self.mu), log_std)
        self.curvature = curvature

    @property
    def mean(self) -> Tensor:
        """mu, the point that represents q."""
        return self.mu

    def rsample(self, n: int) -> Tensor:
        return translate(self.mu, self.tangent.rsample(n), self.curvature)

    def log_prob(self, z: Tensor) -> Tensor:
        v = translate(-self.mu, z, self.curvature)
        return self.tangent.log_prob(v) - log_volume(v, self.curvature)

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        v, log_density = self.tangent.rsample_with_log_prob(n)
        return translate(self.mu, v, self.curvature), log_density - log_volume(v, self.curvature)

    def stop_gradient(self) -> Self:
        return type(self)(self.mu.detach(), self.tangent.log_std.detach(), self.curvature)
