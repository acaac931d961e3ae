"""DIP-VAE I and II: the aggregate posterior's covariance drawn to the identity (Kumar et al. 2018, "Variational
Inference of Disentangled Latent Concepts from Unlabeled Observations", arXiv:1711.00848, eq. 6-7).

Shapes: B batch, D latent dimensions.
"""

from typing import Literal

import torch
from torch import Tensor

from attelbo.checks import check_at_least, check_choice, check_not_negative
from attelbo.latent.distributions import DiagonalNormal, Distribution, FullNormal, LowRankNormal
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective

Kind = Literal["i", "ii"]


class DIP(Objective):
    """loss = -ELBO + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2, nats.

    C is estimated from the minibatch, dividing by B; the penalties have no unit. Sampling noise of C is of the order of
    1 / sqrt(B) and is penalized too: large weights with small minibatches make z less informative.

    Args:
        kind: i: C is the covariance of the posterior means; ii: of the aggregate posterior, to which the posteriors'
            own covariances add.
        off_diagonal: weight of the covariances.
        diagonal: weight of the variances.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: another kind, a weight that is negative or not finite, or n_samples below 1.
    """

    watched = "loss"
    posteriors = (DiagonalNormal, FullNormal, LowRankNormal)

    def __init__(
        self,
        kind: Kind = "ii",
        off_diagonal: float = 1.0,
        diagonal: float = 1.0,
        n_samples: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        check_not_negative(off_diagonal=off_diagonal, diagonal=diagonal)
        check_choice("kind", kind, Kind)
        self.kind = kind
        self.off_diagonal = off_diagonal
        self.diagonal = diagonal
        self.n_samples = n_samples

    def forward(self, evidence: Evidence) -> Tensor:
        covariance = _covariance_of_means(evidence.posterior.mean.flatten(1))
        if self.kind == "ii":
            covariance = covariance + _mean_covariance(evidence.posterior)
        variances = covariance.diagonal(dim1=-2, dim2=-1)
        off_diagonal = covariance.square().sum() - variances.square().sum()
        penalty = self.off_diagonal * off_diagonal + self.diagonal * (variances - 1).square().sum()
        return evidence.distortion + evidence.rate + penalty


def _covariance_of_means(mean: Tensor) -> Tensor:
    """(B, D) -> (D, D)."""
    centered = mean - mean.mean(0)
    with torch.autocast(mean.device.type, enabled=False):
        return centered.mT @ centered / len(mean)


def _mean_covariance(q: Distribution) -> Tensor:
    """The mean over the batch of q's covariance, (D, D)."""
    if isinstance(q, DiagonalNormal):
        return q.std.flatten(1).square().mean(0).diag_embed()
    if isinstance(q, LowRankNormal):
        return q.std.square().mean(0).diag_embed() + _mean_square(q.std.unsqueeze(-1) * q.directions)
    assert isinstance(q, FullNormal)
    return _mean_square(q.scale_tril)


def _mean_square(factor: Tensor) -> Tensor:
    """The mean over the batch of U U^T, U (B, D, R): (D, D)."""
    beside = factor.transpose(0, 1).flatten(1)  # (D, B * R)
    with torch.autocast(factor.device.type, enabled=False):
        return beside @ beside.mT / len(factor)
