"""Disentanglement: how far single latents represent single factors of variation.

Every score lies in 0..1, 1 for codes that are the factors themselves, whatever their order, sign and scale. Factors
that do not vary are left out. Random parts are determined by a seed.

Shapes: N rows, D latent dimensions, F factors.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from attelbo.metrics.disentanglement.agreement import Similarity, disentanglement_ranking
from attelbo.metrics.disentanglement.explicitness import explicitness
from attelbo.metrics.disentanglement.gaps import (
    gaps,
    modularity,
    mutual_information_gap,
    pairwise_mutual_information,
    predictability,
    separated_attribute_predictability,
    share_of_information,
)
from attelbo.metrics.disentanglement.importance import DCI, concentrations, dci
from attelbo.metrics.disentanglement.robustness import interventional_robustness
from attelbo.metrics.disentanglement.votes import beta_vae_score, factor_vae_score

__all__ = [
    "DCI",
    "Disentanglement",
    "Representation",
    "Similarity",
    "beta_vae_score",
    "concentrations",
    "dci",
    "disentanglement_ranking",
    "disentanglement_scores",
    "explicitness",
    "factor_vae_score",
    "gaps",
    "interventional_robustness",
    "modularity",
    "mutual_information_gap",
    "pairwise_mutual_information",
    "predictability",
    "separated_attribute_predictability",
    "share_of_information",
]

Representation = Literal["published", "mean", "sample"]

ACTIVE = 0.01
"""The least share of a latent's variance that its mean must have; for unit variance, the threshold of active units."""


class Disentanglement(NamedTuple):
    """Scores, and the tables from which they are computed; K of the F factors vary."""

    scores: dict[str, float]
    varies: list[bool]
    """Which factors do, F of them."""
    information: Tensor
    """I(z_j; v_k) / H(v_k), (D, K): the gaps of its columns are MIG."""
    predictability: Tensor
    """Of factors from single latents, (D, K): the gaps of its columns are SAP."""
    importance: Tensor
    """Of latents for factors in the forests of DCI, (D, K)."""
    accuracies: Tensor
    """Of these forests, (K,)."""
    agreeing: float
    """The mean number of rows that share a value of a factor, for the factor with the fewest."""


def disentanglement_scores(
    means: Tensor,
    samples: Tensor,
    factors: Tensor,
    ordered: Sequence[bool],
    seed: int,
    representation: Representation = "published",
) -> Disentanglement:
    """All scores of a model's codes.

    Papers differ in the representation of x. With ``published``, the mutual information gap uses samples of z, which
    include the uncertainty of the posterior, and the other scores use posterior means, as in the paper of each;
    Locatello et al. 2019 use ``mean`` for all; ``sample`` for all shows how much of each score survives the noise.

    A latent that the decoder ignores has a nearly constant mean, which is still, without its noise, a function of x:
    unless its mean has the share ``ACTIVE`` of its variance, its means are replaced by a constant here.

    Args:
        means: E[z|x] of each row, (N, D).
        samples: one z ~ q(z|x) of each row, (N, D).
        factors: their classes, (N, F), int64.
        ordered: for each factor, whether neighbouring classes are alike.
        seed: of the random parts.
        representation: what the scores are computed from.

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
    means = torch.where(active, means, 0.0)
    codes = samples if representation == "sample" else means
    information = share_of_information(means if representation == "mean" else samples, factors)
    table, forest = predictability(codes, factors, ordered), dci(codes, factors, seed)
    scores = {
        "mig": float(gaps(information).mean()),
        "sap": float(gaps(table).mean()),
        "modularity": modularity(codes, factors),
        "explicitness": explicitness(codes, factors, seed),
        "irs": interventional_robustness(codes, factors),
        "factor_vae_score": factor_vae_score(codes, factors, seed),
        "beta_vae_score": beta_vae_score(codes, factors, seed),
        "dci_disentanglement": forest.disentanglement,
        "dci_completeness": forest.completeness,
        "dci_informativeness": forest.informativeness,
    }
    agreeing = min(len(factors) / len(values.unique()) for values in factors.unbind(1))
    return Disentanglement(scores, varies.tolist(), information, table, forest.importance, forest.accuracies, agreeing)
