"""The sliced-Wasserstein autoencoder (Kolouri et al. 2018, "Sliced-Wasserstein Auto-Encoder", arXiv:1804.01947,
algorithm 1).

Shapes: K samples, B batch.
"""

from torch import Tensor

from attelbo.checks import check_at_least, check_not_negative
from attelbo.latent.divergences import sliced_wasserstein
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective
from attelbo.latent.objectives.info import samples_of


class SlicedWasserstein(Objective):
    """loss = mean_b(-E_q[log p(x|z)]) + weight SW^2(q(z), p(z)): the aggregate posterior is matched to the prior along
    random directions, drawn anew at each step.

    The paper's cost is a mixture of squared and absolute errors of a deterministic autoencoder.

    Args:
        weight: the paper's lambda.
        n_projections: the number of directions.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: a weight that is negative or not finite, or n_projections or n_samples below 1.
    """

    needs_density = False
    needs_generative = True
    watched = "loss"

    def __init__(self, weight: float = 10.0, n_projections: int = 50, n_samples: int = 1) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples, n_projections=n_projections)
        check_not_negative(weight=weight)
        self.weight = weight
        self.n_projections = n_projections
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        distance = sliced_wasserstein(*samples_of(evidence), self.n_projections).mean()
        return evidence.distortion + self.weight * distance
