"""Shared latents of pairs of images: where their posteriors differ least, both get the same posterior.

Locatello, Poole, Raetsch, Schoelkopf, Bachem & Tschannen 2020, "Weakly-Supervised Disentanglement Without Compromises"
(arXiv:2002.02886), sec. 4.

Shapes: 2 B rows, of which row b and row B + b are a pair; E event shape, D its dimensions.
"""

from typing import Literal

import torch
from torch import Tensor

from attelbo.latent.distributions import DiagonalNormal, normal_kl

Average = Literal["gvae", "ml_vae"]
"""Of N(m, v) and N(m', v'): ``gvae`` has the mean of the means and that of the variances (Hosoya 2019, "Group-Based
Learning of Disentangled Representations with Generalizability for Novel Contents"); ``ml_vae`` the normalized product
sqrt(q q'), whose precision is the mean of the precisions (after Bouchacourt, Tomioka & Nowozin 2018, "Multi-Level
Variational Autoencoder")."""


def share_posteriors(q: DiagonalNormal, average: Average) -> DiagonalNormal:
    """The posteriors of pairs, with those dimensions that differ least replaced by an average of the two.

    A dimension is shared if its distance (:func:`distances`) is below the mean of the smallest and the largest one of
    the pair: the number of shared factors need not be known. No gradient flows through the choice.

    Differs from the paper: the product of ``ml_vae`` is that of the square roots, as in the authors' code, so that two
    equal posteriors have themselves as their average; the product of Bouchacourt et al. has half its variance.
    Differs from the authors' code: the distance is the same both ways, where theirs is KL(q_b || q_b') alone.

    Args:
        q: 2 B posteriors.
        average: of two of them.

    Returns:
        As many, (2 B, *E); of a shared dimension rows b and B + b are equal.
    """
    distance = distances(q)  # (B, *E)
    over = tuple(range(1, distance.ndim))
    shared = distance < 0.5 * (distance.amin(over, keepdim=True) + distance.amax(over, keepdim=True))
    mean, log_std = averaged(q, average)
    shared = torch.cat([shared, shared])
    return DiagonalNormal(
        torch.where(shared, torch.cat([mean, mean]), q.mean),
        torch.where(shared, torch.cat([log_std, log_std]), q.log_std),
    )


def distances(q: DiagonalNormal) -> Tensor:
    """[KL(q_b || q_b') + KL(q_b' || q_b)] / 2 of each pair by dimension, (B, *E), nats."""
    one, other = _halves(q)
    return 0.5 * (normal_kl(one, other) + normal_kl(other, one))


def averaged(q: DiagonalNormal, average: Average) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of the average of each pair, (B, *E)."""
    one, other = _halves(q)
    if average == "gvae":
        return 0.5 * (one.mean + other.mean), 0.5 * (0.5 * (one.std.square() + other.std.square())).log()
    precision, precision_of_other = one.std.square().reciprocal(), other.std.square().reciprocal()
    total = precision + precision_of_other
    return (precision * one.mean + precision_of_other * other.mean) / total, -0.5 * (0.5 * total).log()


def _halves(q: DiagonalNormal) -> tuple[DiagonalNormal, DiagonalNormal]:
    one, other = (
        DiagonalNormal(mean, log_std) for mean, log_std in zip(q.mean.chunk(2), q.log_std.chunk(2), strict=True)
    )
    return one, other
