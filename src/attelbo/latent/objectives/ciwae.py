"""The combination importance-weighted bound (Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily
Better", arXiv:1802.04537, eq. 15).

Shapes: K samples, B batch.
"""

from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, log_weights_of
from attelbo.latent.objectives.iwae import importance_bound


class CIWAE(Objective):
    """loss = -mean_b [beta ELBO + (1 - beta) log (1/K sum_k w_k)], nats: a bound, as both are. The ELBO uses the exact
    KL where it is known; the paper's the sampled one.

    Args:
        beta: the share of the ELBO, 0 to 1.
        n_samples: K.

    Raises:
        ValueError: beta outside 0 to 1, or n_samples below 1.
    """

    needs_log_weights = True
    watched = "loss"

    def __init__(self, beta: float = 0.05, n_samples: int = 5) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be between 0 and 1, got {beta}")
        self.beta = beta
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        bound = importance_bound(log_weights_of(evidence)).mean()
        return self.beta * (evidence.distortion + evidence.rate) - (1 - self.beta) * bound
