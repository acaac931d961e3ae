"""The importance-weighted bound (Burda, Grosse & Salakhutdinov 2016, "Importance Weighted
Autoencoders", eq. 8).

Shapes: K samples, B batch.
"""

import math

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, log_weights_of


class IWAE(Objective):
    """loss = -mean_b log (1/K sum_k w_k), w_k = p(x, z_k) / q(z_k|x), nats.

    Its gradient weights the samples by w_k / sum w. With K = 1, the ELBO with the sampled KL.

    Args:
        n_samples: K.

    Raises:
        ValueError: n_samples below 1.
    """

    needs_log_weights = True
    watched = "loss"

    def __init__(self, n_samples: int = 5) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        return -importance_bound(log_weights_of(evidence)).mean()


def importance_bound(log_weights: Tensor) -> Tensor:
    """log (1/K sum_k w_k) of log w (K, ...), nats."""
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))
