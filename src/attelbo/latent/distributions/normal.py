"""Normal distributions over latents.

Shapes: n samples, B batch, E event shape, D dimensions of a flat event.
"""

from typing import Self

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI, full_precision, sum_event
from attelbo.latent.control_variates import Reference
from attelbo.latent.distributions.base import Distribution


class DiagonalNormal(Distribution):
    """N(mean, diag(std^2)), with mean and log_std of shape (B, *E)."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self._mean = full_precision(mean)
        self.log_std = full_precision(log_std)
        # Sampling and the closed-form KL both need it.
        self.std = self.log_std.exp()

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def divergence_from_standard(self) -> Tensor:
        """KL(q || N(0, I)) by dimension, (B, *E), nats."""
        return 0.5 * (self._mean.square() + self.std.square() - 1) - self.log_std

    def rsample(self, n: int) -> Tensor:
        return self._scaled(self._noise(n))

    def log_prob(self, z: Tensor) -> Tensor:
        return self._log_density((z - self._mean) / self.std)

    def cross_log_prob(self, z: Tensor) -> Tensor:
        # Two products in place of n B deviations. In float32 the squares would cancel; in float64 the error is about
        # 1e-16 (mean / std)^2 nats: 1e-3 at means of 100 and the smallest std that a posterior has.
        of_z, mean, log_std = (part.flatten(1).double() for part in (z, self._mean, self.log_std))
        precision = (-2 * log_std).exp()
        squares = of_z.square() @ precision.mT - 2 * of_z @ (mean * precision).mT  # (n, B)
        constant = (0.5 * mean.square() * precision + log_std + 0.5 * LOG_2PI).sum(1)  # (B,)
        return (-0.5 * squares - constant).to(torch.promote_types(z.dtype, self._mean.dtype))

    def cross_log_prob_by_dimension(self, z: Tensor) -> Tensor:
        """log q(z_d|x_b) of each z (n, *E) for each of the B rows, (n, B, D), nats."""
        of_z, mean, log_std = z.flatten(1).unsqueeze(1), self._mean.flatten(1), self.log_std.flatten(1)
        return -0.5 * ((of_z - mean) * (-log_std).exp()).square() - (log_std + 0.5 * LOG_2PI)

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        noise = self._noise(n)
        return self._scaled(noise), self._log_density(noise)

    def rsample_for_kl(self, n: int) -> tuple[Tensor, Tensor, Reference]:
        noise = self._noise(n)
        z = self._scaled(noise)
        # log q(z) - log N(z; 0, I) = (z^2 - noise^2) / 2 - log std, by dimension.
        sampled = sum_event(0.5 * (z.square() - noise.square()) - self.log_std, 2)
        expected = sum_event(self.divergence_from_standard, 1)
        return z, self._log_density(noise), Reference(sampled, expected)

    def stop_gradient(self) -> Self:
        return type(self)(self._mean.detach(), self.log_std.detach())

    def _noise(self, n: int) -> Tensor:
        return torch.randn((n, *self._mean.shape), dtype=self._mean.dtype, device=self._mean.device)

    def _scaled(self, noise: Tensor) -> Tensor:
        """The z, (n, B, *E), of noise (n, B, *E)."""
        if len(noise) == 1:  # the gradient of mean and std would be summed over one sample
            return torch.addcmul(self._mean, self.std, noise[0]).unsqueeze(0)
        return torch.addcmul(self._mean, self.std, noise)

    def _log_density(self, standardized: Tensor) -> Tensor:
        """log q(z), (n, B), of (z - mean) / std, (n, B, *E)."""
        normalizer = sum_event(self.log_std + 0.5 * LOG_2PI, 1)  # (B,)
        return -0.5 * sum_event(standardized.square(), 2) - normalizer


class FullNormal(Distribution):
    """N(mean, L L^T), with mean (B, D) and the lower Cholesky factor L = scale_tril (B, D, D), diagonal > 0."""

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        self._mean = full_precision(mean)
        self.scale_tril = full_precision(scale_tril)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def half_log_det(self) -> Tensor:
        """log det L, half the log determinant of the covariance, (B,)."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample(self, n: int) -> Tensor:
        return self._correlate(self._noise(n))

    def log_prob(self, z: Tensor) -> Tensor:
        deviation = (z - self._mean).permute(1, 2, 0)  # (B, D, n)
        standardized = torch.linalg.solve_triangular(self.scale_tril, deviation, upper=False)
        return self._log_density(standardized.mT)

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        noise = self._noise(n)
        return self._correlate(noise), self._log_density(noise)

    def stop_gradient(self) -> Self:
        return type(self)(self._mean.detach(), self.scale_tril.detach())

    def _noise(self, n: int) -> Tensor:
        batch, dim = self._mean.shape
        return torch.randn((batch, n, dim), dtype=self._mean.dtype, device=self._mean.device)

    def _correlate(self, noise: Tensor) -> Tensor:
        """mean + L noise of noise (B, n, D), as z (n, B, D)."""
        # Autocast would round the product to bfloat16, and z would no longer be a sample of q.
        with torch.autocast(self._mean.device.type, enabled=False):
            z = torch.baddbmm(self._mean.unsqueeze(1), noise, self.scale_tril.mT)  # (B, n, D)
        return z.transpose(0, 1)

    def _log_density(self, standardized: Tensor) -> Tensor:
        """log q(z), (n, B), of L^-1 (z - mean), (B, n, D)."""
        normalizer = self.half_log_det + 0.5 * LOG_2PI * self._mean.shape[-1]  # (B,)
        return -0.5 * standardized.square().sum(-1).mT - normalizer


def normal_kl(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """KL(q || p) of diagonal normals over the same event by dimension, (B, *E), nats."""
    deviation = (q.mean - p.mean) / p.std
    return 0.5 * ((q.std / p.std).square() + deviation.square() - 1) - q.log_std + p.log_std
