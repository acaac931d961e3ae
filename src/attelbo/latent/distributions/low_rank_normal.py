"""The normal whose covariance is a diagonal plus a low-rank matrix (Rezende, Mohamed & Wierstra 2014, "Stochastic
Backpropagation", sec. 4.3, where it is the precision that has this form, with R = 1).

Shapes: n samples, B batch, D dimensions, R rank.
"""

from typing import Self

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI, full_precision
from attelbo.latent.distributions.base import Distribution


class LowRankNormal(Distribution):
    """N(mean, S (I + V V^T) S), S = diag(std), with mean and log_std (B, D) and V = directions (B, D, R).

    That is diag(std^2) + U U^T with U = S V. Measured in units of std, the R x R matrix C = I + V^T V that has to be
    factorized has no eigenvalue below 1, whatever the scales of z.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, directions: Tensor) -> None:
        self._mean = full_precision(mean)
        self.log_std = full_precision(log_std)
        self.directions = full_precision(directions)
        self.std = self.log_std.exp()
        identity = torch.eye(self.directions.shape[-1], dtype=self._mean.dtype, device=self._mean.device)
        # L of C = L L^T, (B, R, R); without a check for success, which would synchronize host and device.
        self._factor, _ = torch.linalg.cholesky_ex(identity + self._product(self.directions.mT, self.directions))

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, (B, D)."""
        return self.std.square() * (1 + self.directions.square().sum(-1))

    @property
    def half_log_det(self) -> Tensor:
        """Half the log determinant of the covariance, (B,), by the matrix determinant lemma: log det S + log det L,
        C = L L^T."""
        return self.log_std.sum(-1) + self._factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample(self, n: int) -> Tensor:
        batch, dim, rank = self.directions.shape
        kind = {"dtype": self._mean.dtype, "device": self._mean.device}
        along, noise = torch.randn((batch, n, rank), **kind), torch.randn((n, batch, dim), **kind)
        noise = noise + self._product(along, self.directions.mT).transpose(0, 1)
        return torch.addcmul(self._mean, self.std, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        # w^T (I + V V^T)^-1 w is the minimum over y of |w - V y|^2 + |y|^2, at y = C^-1 V^T w (Woodbury): a sum of
        # squares, where |w|^2 - w^T V y would be the difference of large numbers.
        w = ((z - self._mean) / self.std).transpose(0, 1)  # (B, n, D)
        y = torch.linalg.solve_triangular(self._factor, self._product(w, self.directions).mT, upper=False)
        y = torch.linalg.solve_triangular(self._factor.mT, y, upper=True).mT  # (B, n, R)
        residual = w - self._product(y, self.directions.mT)
        quadratic = residual.square().sum(-1) + y.square().sum(-1)  # (B, n)
        normalizer = self.half_log_det + 0.5 * LOG_2PI * self._mean.shape[-1]  # (B,)
        return -0.5 * quadratic.mT - normalizer

    def stop_gradient(self) -> Self:
        return type(self)(self._mean.detach(), self.log_std.detach(), self.directions.detach())

    @staticmethod
    def _product(a: Tensor, b: Tensor) -> Tensor:
        # Autocast would round it to bfloat16, and z would no longer be a sample of q.
        with torch.autocast(a.device.type, enabled=False):
            return a @ b
