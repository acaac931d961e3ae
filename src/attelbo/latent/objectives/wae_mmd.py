"""The Wasserstein autoencoder with the maximum mean discrepancy (Tolstikhin et al. 2018, "Wasserstein Auto-Encoders",
arXiv:1711.01558, algorithm 2).

Shapes: K samples, B batch.
"""

from torch import Tensor

from attelbo.checks import check_at_least, check_choice, check_not_negative
from attelbo.latent.divergences import Kernel
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective
from attelbo.latent.objectives.info import discrepancy_of


class WAEMMD(Objective):
    """loss = mean_b(-E_q[log p(x|z)]) + weight MMD^2(q(z), p(z)): the aggregate posterior is matched to the prior, not
    each q(z|x).

    The paper's cost is a squared error: -log p of a normal likelihood, in units of 2 std^2. Its code adds the kernels
    of seven scales where ours takes their mean: its lambda is a seventh of our weight.

    Args:
        weight: the paper's lambda.
        kernel: imq | rbf.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: a weight that is negative or not finite, another kernel, or n_samples below 1.
    """

    needs_density = False
    needs_generative = True
    watched = "loss"

    def __init__(self, weight: float = 100.0, kernel: Kernel = "imq", n_samples: int = 1) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        check_choice("kernel", kernel, Kernel)
        check_not_negative(weight=weight)
        self.weight = weight
        self.kernel: Kernel = kernel
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        return evidence.distortion + self.weight * discrepancy_of(evidence, self.kernel)
