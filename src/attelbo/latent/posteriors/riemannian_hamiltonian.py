"""The Riemannian Hamiltonian posterior (Chadebec, Mantoux & Allassonniere 2020, "Geometry-Aware Hamiltonian Variational
Auto-Encoder", arXiv:2010.11518; Chadebec, Thibeau-Sutre, Burgos & Allassonniere 2022, arXiv:2105.00026).

Shapes: B batch, F the encoder's output shape, D = latent_dim, N centroids.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_positive, check_repetitions
from attelbo.latent.arithmetic import bound_log_std
from attelbo.latent.distributions import RiemannianHamiltonian
from attelbo.latent.distributions.riemannian_hamiltonian import Metric
from attelbo.latent.posteriors.hamiltonian import HamiltonianPosterior
from attelbo.latent.triangular import triangular, triangular_places


class RiemannianHamiltonianPosterior(HamiltonianPosterior):
    """A Hamiltonian posterior in a latent space with a learned metric, G^-1(z) = sum_i M_i w_i(z) + lambda I.

    Differs from the paper, whose centroids c_i are the encodings of all training data, each with a matrix L_i that a
    network makes of its image: here they are N of each, parameters, so that time and memory do not grow with the data
    and q(z|x) of one image does not depend on others. They start as draws from N(0, I), with matrices that make G^-1
    the identity where these are, on average. Distances are divided by sqrt(D), so that a temperature suits any D.

    The papers also draw latents from a density proportional to sqrt(det G^-1(z)). It has no finite integral, for
    lambda > 0, and hence no place among the priors here: images are sampled from the prior that was trained with.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_leapfrog: L, steps.
        step_size: of all dimensions at the start, in (0, 0.5).
        beta_0: the inverse temperature at the start, in (0, 1]; 1: no tempering.
        n_centroids: N.
        temperature: T, how far a centroid reaches, in units of sqrt(D).
        regularization: lambda, what is left of G^-1 far from all centroids.
        n_iterations: of each implicit equation of a step.

    Raises:
        ValueError: a number below 1, or out of range.
    """

    distribution = RiemannianHamiltonian
    _places: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_leapfrog: int = 3,
        step_size: float = 0.05,
        beta_0: float = 0.3,
        n_centroids: int = 32,
        temperature: float = 1.0,
        regularization: float = 0.01,
        n_iterations: int = 3,
    ) -> None:
        super().__init__(in_shape, latent_dim, n_leapfrog, step_size, beta_0)
        check_at_least(1, n_centroids=n_centroids)
        check_repetitions(n_iterations=n_iterations)
        check_positive(temperature=temperature, regularization=regularization)
        self.temperature = temperature
        self.regularization = regularization
        self.n_iterations = n_iterations
        self.centroids = nn.Parameter(torch.randn(n_centroids, latent_dim))
        self.register_buffer("_places", triangular_places(latent_dim, "below"), persistent=False)
        with torch.no_grad():
            weights = self._metric(torch.eye(latent_dim).expand(n_centroids, -1, -1)).at(self.centroids).weights
        log_diagonal = -0.5 * weights.sum(-1).mean().log()
        self.log_diagonals = nn.Parameter(log_diagonal.repeat(n_centroids, latent_dim))
        self.below = nn.Parameter(torch.zeros(n_centroids, latent_dim * (latent_dim - 1) // 2))

    def forward(self, h: Tensor) -> RiemannianHamiltonian:
        plain = super().forward(h)
        return RiemannianHamiltonian(
            plain.base, plain.step_size, self.n_leapfrog, self.beta_0, self.metric, self.n_iterations
        )

    @property
    def metric(self) -> Metric:
        """The metric of the latent space."""
        diagonals = bound_log_std(self.log_diagonals).exp()
        roots = triangular(diagonals, self.below, self._places)
        with torch.autocast(roots.device.type, enabled=False):
            return self._metric(roots @ roots.mT)

    def _metric(self, tensors: Tensor) -> Metric:
        return Metric(self.centroids, tensors, self.temperature, self.regularization)
