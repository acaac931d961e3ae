"""Disentanglement: how far single latents stand for single factors of variation.

Every score lies in 0..1, 1 for codes that are the factors themselves, whatever their order, sign and scale. Factors
that do not vary are left out. Random parts follow from a seed.

Shapes: N rows, D latent dimensions, F factors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.metrics.disentanglement.gaps import (
    modularity,
    mutual_information_gap,
    pairwise_mutual_information,
    separated_attribute_predictability,
)
from attelbo.metrics.disentanglement.importance import DCI, dci
from attelbo.metrics.disentanglement.votes import beta_vae_score, factor_vae_score

__all__ = [
    "DCI",
    "beta_vae_score",
    "dci",
    "disentanglement_scores",
    "factor_vae_score",
    "modularity",
    "mutual_information_gap",
    "pairwise_mutual_information",
    "separated_attribute_predictability",
]

ACTIVE = 0.01
"""The share of a latent's variance that its mean must have; of a unit variance, the threshold of active units."""


def disentanglement_scores(
    means: Tensor, samples: Tensor, factors: Tensor, ordered: Sequence[bool], seed: int
) -> dict[str, float]:
    """All scores of a model's codes.

    The mutual information gap is defined on samples of z. The others read posterior means, where a latent that the
    decoder ignores has a mean that is all but constant, and still, without its noise, a function of x: unless its mean
    has ``ACTIVE`` of its variance, it is held constant here.

    Args:
        means: E[z|x] of each row, (N, D).
        samples: one z ~ q(z|x) of each row, (N, D).
        factors: their classes, (N, F), int64.
        ordered: for each factor, whether neighbouring classes are alike.
        seed: of what is random.

    Raises:
        ValueError: fewer than two factors vary, or shapes that do not go together.
    """
    if not len(means) == len(samples) == len(factors) or factors.shape[1] != len(ordered):
        raise ValueError(
            "means (N, D), samples (N, D), factors (N, F) and ordered (F) must go together, "
            f"got {tuple(means.shape)}, {tuple(samples.shape)}, {tuple(factors.shape)} and {len(ordered)}"
        )
    varies = (factors != factors[0]).any(0)
    if int(varies.sum()) < 2:
        raise ValueError(f"at least two factors must vary, got {int(varies.sum())}")
    factors, ordered = factors[:, varies], [o for o, v in zip(ordered, varies.tolist(), strict=True) if v]
    means, samples = means.double(), samples.double()
    active = means.var(0, correction=0) > ACTIVE * samples.var(0, correction=0)
    codes = torch.where(active, means, 0.0)
    forest = dci(codes, factors, seed)
    return {
        "mig": mutual_information_gap(samples, factors),
        "sap": separated_attribute_predictability(codes, factors, ordered),
        "modularity": modularity(codes, factors),
        "factor_vae_score": factor_vae_score(codes, factors, seed),
        "beta_vae_score": beta_vae_score(codes, factors, seed),
        "dci_disentanglement": forest.disentanglement,
        "dci_completeness": forest.completeness,
        "dci_informativeness": forest.informativeness,
    }
