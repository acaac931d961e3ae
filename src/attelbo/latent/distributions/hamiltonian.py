"""Normal samples that Hamiltonian dynamics leads towards the true posterior (Caterini, Doucet & Sejdinovic 2018,
"Hamiltonian Variational Auto-Encoder", arXiv:1805.11328, algorithm 1).

    z_0 ~ N(m, diag(s^2)),  rho_0 = gamma / sqrt(beta_0),  gamma ~ N(0, I)
    k = 1 .. L:  one leapfrog step of the potential U(z) = -log p(x, z), then rho *= sqrt(beta_(k-1) / beta_k)

A leapfrog step preserves volume whatever the force, and the cooling scales it by beta_0^(D/2) in all, so the density of
(z_L, rho_L) is known. On this extended space log p(x, z_L) + log N(rho_L; 0, I) - log q(z_L, rho_L) is a log-weight
like any other: its mean bounds log p(x), and the mean of its exponential is p(x).

Shapes: n samples, B batch, D dimensions.
"""

import copy
import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attelbo.latent.control_variates import Reference
from attelbo.latent.distributions.base import Distribution
from attelbo.latent.distributions.normal import DiagonalNormal

LogJoint = Callable[[Tensor], Tensor]
"""z (n, B, *E) -> log p(x, z), (n, B), nats; after Hamiltonian dynamics, E is (D,)."""


class Hamiltonian(Distribution):
    """The distribution of z_L, known for its own samples only, and only once ``with_log_joint`` log p(x, z).

    ``rsample_with_log_prob`` gives log q(z_L, rho_L) - log N(rho_L; 0, I) in place of log q(z_L), of which it is an
    upper bound in expectation over rho_L given z_L: bounds, KL and importance weights made of it are those of the
    paper.

    Args:
        base: of z_0, with means (B, D).
        step_size: of the leapfrog steps, (D,).
        n_leapfrog: L.
        beta_0: the inverse temperature at the start, in (0, 1]; it rises to 1 by the paper's quadratic scheme.
        log_joint: log p(x, z).
    """

    def __init__(
        self,
        base: DiagonalNormal,
        step_size: Tensor,
        n_leapfrog: int,
        beta_0: float,
        log_joint: LogJoint | None = None,
    ) -> None:
        self.base = base
        self.step_size = step_size
        self.n_leapfrog = n_leapfrog
        self.beta_0 = beta_0
        self.log_joint = log_joint

    def with_log_joint(self, log_joint: LogJoint) -> Self:
        guided = copy.copy(self)
        guided.log_joint = log_joint
        return guided

    @property
    def mean(self) -> Tensor:
        """The mean of z_0, (B, D): the point that represents q."""
        return self.base.mean

    def rsample(self, n: int) -> Tensor:
        return self.rsample_with_log_prob(n)[0]

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        z, log_q, _ = self.rsample_for_kl(n)
        return z, log_q

    def rsample_for_kl(self, n: int) -> tuple[Tensor, Tensor, Reference]:
        z, log_q, reference = self.base.rsample_for_kl(n)
        gamma = self._draw_momentum(z)
        log_q = log_q + self._log_momentum(z, gamma)
        z, rho, log_det = self.move(z, gamma / math.sqrt(self.beta_0))
        return z, log_q - log_det - self._log_momentum(z, rho), reference

    def log_prob(self, z: Tensor) -> Tensor:
        """Not known: the momentum that led to z would have to be integrated over.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the density of a given z is not known after Hamiltonian dynamics")

    def move(self, z: Tensor, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(z_0, rho_0) -> (z_L, rho_L), each (n, B, D), and the logarithm of the determinant, (n, B), without that of
        the cooling, which is D / 2 log beta_0."""
        force, log_det = self._force(z), z.new_zeros(z.shape[:-1])
        root = math.sqrt(self.beta_0)
        for k in range(1, self.n_leapfrog + 1):
            z, rho, force, change = self._step(z, rho, force)
            log_det = log_det + change
            # Eq. 9: 1 / sqrt(beta_k) falls from 1 / sqrt(beta_0) to 1 as k^2 / L^2 rises.
            following = 1 / ((1 - 1 / math.sqrt(self.beta_0)) * (k / self.n_leapfrog) ** 2 + 1 / math.sqrt(self.beta_0))
            rho = rho * (root / following)
            root = following
        return z, rho, log_det

    def _step(self, z: Tensor, rho: Tensor, force: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | float]:
        """One leapfrog step of z and rho: these, the force at the new z, and the logarithm of the determinant."""
        rho = rho + 0.5 * self.step_size * force
        z = z + self.step_size * rho
        force = self._force(z)
        return z, rho + 0.5 * self.step_size * force, force, 0.0

    def _draw_momentum(self, z: Tensor) -> Tensor:
        """gamma, (n, B, D), at z_0."""
        return torch.randn_like(z)

    def _log_momentum(self, z: Tensor, rho: Tensor) -> Tensor:
        """log N(rho; 0, I), (n, B), but for a constant."""
        return -0.5 * rho.square().sum(-1)

    def _force(self, z: Tensor) -> Tensor:
        """The gradient of log p(x, z) by z, itself differentiable."""
        if self.log_joint is None:
            raise ValueError("Hamiltonian dynamics needs log p(x, z): give it by with_log_joint, as the VAE does")
        log_joint = self.log_joint
        # The fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.grad(lambda at: log_joint(at).sum())(z)
