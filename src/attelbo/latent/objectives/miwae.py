"""The multiply importance-weighted bound (Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily
Better", arXiv:1802.04537, eq. 14).

Shapes: M groups of K samples, B batch.
"""

from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, log_weights_of
from attelbo.latent.objectives.iwae import importance_bound


class MIWAE(Objective):
    """loss = -mean_b 1/M sum_m log (1/K sum_k w_mk), nats: the mean of M importance-weighted bounds of K samples.

    The bound is that of K samples, the variance of its gradient that of M K. M = 1 is IWAE, K = 1 the ELBO with the
    sampled KL.

    Args:
        n_samples: M K, all samples of z for each x.
        n_groups: M.

    Raises:
        ValueError: a number below 1, or n_groups does not divide n_samples.
    """

    needs_log_weights = True
    watched = "loss"

    def __init__(self, n_samples: int = 8, n_groups: int = 2) -> None:
        super().__init__()
        check_groups(n_samples, n_groups)
        self.n_samples = n_samples
        self.n_groups = n_groups

    def forward(self, evidence: Evidence) -> Tensor:
        return -grouped_bound(log_weights_of(evidence), self.n_groups).mean()


def grouped_bound(log_weights: Tensor, n_groups: int) -> Tensor:
    """The mean over ``n_groups`` groups of the importance-weighted bound of log w (M K, B), (B,), nats."""
    return importance_bound(log_weights.unflatten(0, (-1, n_groups))).mean(0)


def check_groups(n_samples: int, n_groups: int) -> None:
    """Raise ValueError unless the samples fall into groups of equal size."""
    check_at_least(1, n_samples=n_samples)
    if n_groups < 1 or n_samples % n_groups:
        raise ValueError(f"n_groups must divide n_samples, {n_samples}, got {n_groups}")
