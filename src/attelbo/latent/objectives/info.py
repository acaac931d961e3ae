"""InfoVAE with the maximum mean discrepancy (Zhao, Song & Ermon 2019, "InfoVAE: Balancing Learning and Inference in
Variational Autoencoders", arXiv:1706.02262, eq. 6).

Shapes: K samples, B batch, E event shape of z.
"""

from torch import Tensor

from attelbo.checks import check_at_least, check_choice, check_not_negative
from attelbo.latent.divergences import Kernel, maximum_mean_discrepancy
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, prior_samples


class InfoVAE(Objective):
    """loss = mean_b(-E_q[log p(x|z)] + (1 - alpha) KL) + (alpha + weight - 1) MMD^2(q(z), p(z)), nats.

    q(z) is the aggregate posterior; MMD^2 has no unit and is between 0 and 2: see ``attelbo.latent.divergences``. The
    authors' code has one Gaussian kernel and the biased estimate.

    Args:
        alpha: up to 1: the preference for mutual information between x and z.
        weight: the paper's lambda.
        kernel: imq | rbf.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: alpha above 1, alpha + weight below 1, another kernel, or n_samples below 1.
    """

    needs_generative = True
    watched = "loss"

    def __init__(self, alpha: float = 0.5, weight: float = 10.0, kernel: Kernel = "imq", n_samples: int = 1) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        check_choice("kernel", kernel, Kernel)
        check_not_negative(weight=weight)
        if not 1 - weight <= alpha <= 1:
            raise ValueError(f"alpha must be between 1 - weight, {1 - weight:g}, and 1, got {alpha:g}")
        self.alpha = alpha
        self.weight = weight
        self.kernel: Kernel = kernel
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        discrepancy = discrepancy_of(evidence, self.kernel)
        return evidence.distortion + (1 - self.alpha) * evidence.rate + (self.alpha + self.weight - 1) * discrepancy


def discrepancy_of(evidence: Evidence, kernel: Kernel) -> Tensor:
    """The mean over sets of independent samples of the unbiased estimate of MMD^2(q(z), p(z)), a scalar: within a set
    that has dependent ones, two images of a pair, it would be too large by a share of order 1 / B."""
    z, other = (each.unflatten(1, (evidence.n_sets, -1)).flatten(0, 1) for each in samples_of(evidence))
    return maximum_mean_discrepancy(z, other, kernel).mean()


def samples_of(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Samples of the aggregate posterior and as many of the prior, (K, B, D) each: K sets, since samples of the same
    q(z|x) are not independent draws of the aggregate."""
    z = evidence.z.flatten(2)
    return z, prior_samples(evidence).reshape(z.shape)
