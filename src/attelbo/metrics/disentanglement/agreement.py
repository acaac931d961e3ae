"""Unsupervised disentanglement ranking (UDR): of models that differ in their seed, the disentangled ones are those
whose latents agree with those of the others, up to order and sign, since there are many ways to entangle factors but
few to disentangle them.

Duan, Matthey, Saraiva, Watters, Burgess, Lerchner & Higgins 2020, "Unsupervised Model Selection for Variational
Disentangled Representation Learning" (arXiv:1905.12614), sec. 4.

Shapes: M models, N rows that all of them encode, D latents of one model, D' of another.
"""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import torch
from torch import Tensor

Similarity = Literal["lasso", "spearman"]
"""Absolute values of the coefficients of an L1-regularized regression (``lasso``) or of rank correlations
(``spearman``)."""

INFORMATIVE = 0.01
"""The least mean KL over the rows, nats, of latents that are compared."""
PENALTY = 0.1
"""Of the lasso, on standardized latents."""


def disentanglement_ranking(codes: Sequence[Tensor], kls: Sequence[Tensor], kind: Similarity) -> list[float]:
    """UDR of each model: the median over the others of :func:`agreement`, in 0..1. No factor needs to be known.

    For identical models it is 1 by rank correlations if their latents are uncorrelated, and 1 - ``PENALTY`` by the
    lasso, whose penalty shrinks every coefficient. Without an informative latent it is 0.

    Args:
        codes: posterior means of the same rows, (N, D) each.
        kls: KL of each latent, averaged over the rows, (D,) each, nats.
        kind: the similarity of two latents.

    Raises:
        ValueError: fewer than two models, or codes that are not of the same rows.
    """
    if len(codes) < 2 or len({len(each) for each in codes}) > 1:
        raise ValueError(f"at least two models on the same rows, got {[tuple(each.shape) for each in codes]}")
    kept = [_standardized(each.double()[:, kl > INFORMATIVE]) for each, kl in zip(codes, kls, strict=True)]
    return [
        median(agreement(similarity(other, own, kind)) for j, other in enumerate(kept) if j != i)
        for i, own in enumerate(kept)
    ]


def agreement(table: Tensor) -> float:
    """How far each latent of one model corresponds to exactly one of the other, and vice versa: the mean over all
    latents of both, D + D', of r^2 / (sum of the latent's row or column), with r the largest number in it.

    Differs from the authors' code, which takes the mean of the two models' means.

    Args:
        table: similarities, (D, D'), not negative.
    """
    if table.numel() == 0:
        return 0.0
    found = []
    for dim in (0, 1):
        total = table.sum(dim)
        found.append(torch.where(total > 0, table.amax(dim).square() / total, 0.0))
    return float(torch.cat(found).mean())


def similarity(codes: Tensor, targets: Tensor, kind: Similarity) -> Tensor:
    """The similarity of each of the standardized codes (N, D) and each of the targets (N, D'): (D, D'); the lasso
    predicts the targets."""
    if not codes.shape[1] or not targets.shape[1]:
        return codes.new_zeros(codes.shape[1], targets.shape[1])
    if kind == "spearman":
        ranks, ranks_of_targets = (_standardized(_ranks(each)) for each in (codes, targets))
        return (ranks.mT @ ranks_of_targets / len(codes)).abs()
    from sklearn.linear_model import Lasso  # slow to import

    model = Lasso(alpha=PENALTY).fit(codes.cpu().numpy(), targets.cpu().numpy())
    return torch.from_numpy(model.coef_).view(targets.shape[1], codes.shape[1]).mT.abs()


def _standardized(codes: Tensor) -> Tensor:
    """Mean 0 and variance 1 of each column; 0 where it is constant."""
    centered = codes - codes.mean(0)
    scale = centered.square().mean(0).sqrt()
    return torch.where(scale > 0, centered / scale, 0.0)


def _ranks(codes: Tensor) -> Tensor:
    """The ranks within each column, (N, D); mean ranks for ties."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(codes.cpu().numpy(), axis=0))
