"""The Hamiltonian posterior (Caterini, Doucet & Sejdinovic 2018, "Hamiltonian Variational Auto-Encoder",
arXiv:1805.11328).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_repetitions
from attelbo.latent.distributions import Hamiltonian
from attelbo.latent.posteriors.base import Posterior
from attelbo.latent.posteriors.diagonal_normal import DiagonalNormalPosterior

MAX_STEP = 0.5
"""Step sizes are learned between 0 and this: with steps longer than the width of the posterior the dynamics diverge."""


class HamiltonianPosterior(Posterior):
    """A diagonal normal whose samples take leapfrog steps along the gradient of log p(x, z), with cooling.

    Each step costs a gradient of the decoder, in evaluation too. The step size of each dimension is learned; the
    temperatures follow the paper's fixed scheme, not its learned one.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_leapfrog: L, steps.
        step_size: of all dimensions at the start, in (0, 0.5).
        beta_0: the inverse temperature at the start, in (0, 1]; 1: no tempering.

    Raises:
        ValueError: latent_dim or n_leapfrog below 1, a step_size or beta_0 out of range.
    """

    distribution = Hamiltonian

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_leapfrog: int = 3,
        step_size: float = 0.05,
        beta_0: float = 0.3,
    ) -> None:
        super().__init__()
        check_repetitions(n_leapfrog=n_leapfrog)
        if not 0 < step_size < MAX_STEP:
            raise ValueError(f"step_size must be in (0, {MAX_STEP}), got {step_size}")
        if not 0 < beta_0 <= 1:
            raise ValueError(f"beta_0 must be in (0, 1], got {beta_0}")
        self.base = DiagonalNormalPosterior(in_shape, latent_dim)
        self.latent_shape = self.base.latent_shape
        self.n_leapfrog = n_leapfrog
        self.beta_0 = beta_0
        logit = math.log(step_size / (MAX_STEP - step_size))
        self.step_logits = nn.Parameter(torch.full(self.latent_shape, logit))

    def forward(self, h: Tensor) -> Hamiltonian:
        step_size = MAX_STEP * self.step_logits.sigmoid()
        return Hamiltonian(self.base(h), step_size, self.n_leapfrog, self.beta_0)
