"""Normal samples that Hamiltonian dynamics leads through a curved latent space towards the true posterior (Chadebec,
Mantoux & Allassonniere 2020, "Geometry-Aware Hamiltonian Variational Auto-Encoder", arXiv:2010.11518, algorithm 1).

    G^-1(z) = sum_i M_i w_i(z) + lambda I,   w_i(z) = exp(-|z - c_i|^2 / (D T^2)),   M_i = L_i L_i^T
    H(z, rho) = -log p(x, z) - log N(rho; 0, G(z))

The metric G depends on z, so H has no part of rho alone, and the leapfrog steps are implicit:

    rho' = rho - e/2 dH/dz(z, rho')
    z'   = z + e/2 (G^-1(z) + G^-1(z')) rho'
    rho" = rho' - e/2 dH/dz(z', rho')

Shapes: n samples, B batch, D dimensions, N centroids.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.latent.distributions.hamiltonian import Hamiltonian
from attelbo.latent.distributions.normal import DiagonalNormal


class Metric(NamedTuple):
    """G^-1 as a function of z."""

    centroids: Tensor
    """c, (N, D)."""
    tensors: Tensor
    """M, symmetric and positive, (N, D, D)."""
    temperature: float
    """T."""
    regularization: float
    """lambda."""

    def at(self, z: Tensor) -> "MetricAt":
        return MetricAt(self, z)

    def turn(self, rho: Tensor) -> Tensor:
        """M_i rho of rho (n, B, D): (n, B, N, D)."""
        return (rho @ self.tensors.flatten(0, 1).mT).unflatten(-1, self.centroids.shape)


class MetricAt:
    """G^-1 at z (n, B, D), and what the dynamics needs of it. ``turned`` is ``Metric.turn`` of rho."""

    def __init__(self, metric: Metric, z: Tensor) -> None:
        self.metric, self.z = metric, z
        self.scale = 2 / (z.shape[-1] * metric.temperature**2)
        squares = z.square().sum(-1, keepdim=True) + metric.centroids.square().sum(-1)
        self.weights = (self.scale * (z @ metric.centroids.mT - 0.5 * squares)).exp()
        """w, (n, B, N)."""

    def root(self) -> Tensor:
        """The Cholesky factor of G^-1, (n, B, D, D)."""
        n, dim = self.metric.centroids.shape
        inverse = (self.weights @ self.metric.tensors.view(n, -1)).unflatten(-1, (dim, dim))
        inverse = inverse + self.metric.regularization * torch.eye(dim, dtype=inverse.dtype, device=inverse.device)
        return torch.linalg.cholesky_ex(inverse).L  # unlike cholesky, it does not wait for the device

    def traces(self) -> Tensor:
        """<M_i, G>, (n, B, N)."""
        root = self.root()
        identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        half = torch.linalg.solve_triangular(root, identity.expand_as(root), upper=False)  # G = half^T half
        return (half.mT @ half).flatten(-2) @ self.metric.tensors.flatten(1).mT

    def correlate(self, noise: Tensor) -> Tensor:
        """rho ~ N(0, G) of standard normal noise, both (n, B, D)."""
        return torch.linalg.solve_triangular(self.root().mT, noise.unsqueeze(-1), upper=True).squeeze(-1)

    def log_prob(self, rho: Tensor) -> Tensor:
        """log N(rho; 0, G) + D/2 log 2 pi, (n, B)."""
        root = self.root()
        standardized = (root.mT @ rho.unsqueeze(-1)).squeeze(-1)
        return root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * standardized.square().sum(-1)

    def velocity(self, rho: Tensor, turned: Tensor) -> Tensor:
        """G^-1 rho, (n, B, D)."""
        return (self.weights.unsqueeze(-2) @ turned).squeeze(-2) + self.metric.regularization * rho

    def force(self, rho: Tensor, turned: Tensor, traces: Tensor) -> Tensor:
        """The gradient of log N(rho; 0, G) by z, (n, B, D)."""
        # It is sum_i 1/2 (<M_i, G> - rho^T M_i rho) times the gradient of w_i, which is -scale w_i (z - c_i).
        energies = (turned @ rho.unsqueeze(-1)).squeeze(-1)
        shares = 0.5 * self.scale * self.weights * (traces - energies)
        return shares @ self.metric.centroids - shares.sum(-1, keepdim=True) * self.z

    def bend(self, turned: Tensor) -> Tensor:
        """The derivatives of ``velocity`` by z, (n, B, D, D); transposed and negative, those of ``force`` by rho."""
        shares = (self.scale * self.weights).unsqueeze(-1) * turned
        return shares.mT @ self.metric.centroids - shares.sum(-2).unsqueeze(-1) * self.z.unsqueeze(-2)


class RiemannianHamiltonian(Hamiltonian):
    """The distribution of z_L: that of ``Hamiltonian`` with a momentum rho ~ N(0, G(z)).

    The implicit equations are iterated a fixed number of times. What is left of their error does not touch the bound:
    their solutions preserve volume, and by how much the iterates do not is known in closed form, and is part of the
    density. (The paper takes it for nothing.) What remains is that the density counts one way to (z_L, rho_L): steps
    must not be so long, nor the metric so steep, that two states meet.

    The metric is computed in full precision under autocast too: with rounded products the density would be that of
    another map.

    Args:
        base: of z_0, with means (B, D).
        step_size: of the leapfrog steps, (D,).
        n_leapfrog: L.
        beta_0: the inverse temperature at the start, in (0, 1]; it rises to 1 by the scheme of ``Hamiltonian``.
        metric: of the latent space.
        n_iterations: of each implicit equation, 1 at least.
    """

    def __init__(
        self,
        base: DiagonalNormal,
        step_size: Tensor,
        n_leapfrog: int,
        beta_0: float,
        metric: Metric,
        n_iterations: int,
    ) -> None:
        super().__init__(base, step_size, n_leapfrog, beta_0)
        self.metric = metric
        self.n_iterations = n_iterations

    def _draw_momentum(self, z: Tensor) -> Tensor:
        noise = torch.randn_like(z)
        with torch.autocast(z.device.type, enabled=False):
            return self.metric.at(z).correlate(noise)

    def _log_momentum(self, z: Tensor, rho: Tensor) -> Tensor:
        """log N(rho; 0, G(z)), (n, B), but for a constant."""
        with torch.autocast(z.device.type, enabled=False):
            return self.metric.at(z).log_prob(rho)

    def _step(self, z: Tensor, rho: Tensor, force: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half, metric = 0.5 * self.step_size, self.metric
        identity, rows = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device), half.unsqueeze(-1)
        with torch.autocast(z.device.type, enabled=False):
            # The Jacobian of an iterate follows from that of the one before it.
            here = metric.at(z)
            traces, start, of_rho = here.traces(), rho, identity
            for _ in range(self.n_iterations):
                turned = metric.turn(rho)
                rho = start + half * (force + here.force(rho, turned, traces))
                of_rho = identity - rows * (here.bend(turned).mT @ of_rho)
            turned = metric.turn(rho)
            velocity, bend = here.velocity(rho, turned), here.bend(turned)
            there, of_z, bent = here, identity, bend
            for _ in range(self.n_iterations):
                there = metric.at(z + half * (velocity + there.velocity(rho, turned)))
                of_z = identity + rows * (bend + bent @ of_z)
                bent = there.bend(turned)
        force = self._force(there.z)
        with torch.autocast(z.device.type, enabled=False):
            log_det = torch.linalg.slogdet(torch.stack([of_rho, of_z, identity - rows * bent.mT])).logabsdet.sum(0)
            return there.z, rho + half * (force + there.force(rho, turned, there.traces())), force, log_det
