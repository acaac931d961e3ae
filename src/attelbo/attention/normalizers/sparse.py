"""Sparse weights that sum to one: keys with low scores get exactly zero.

    sparsemax    w_s = max(z_s - tau, 0)          the Euclidean projection of the scores onto the simplex
    entmax-1.5   w_s = max(z_s / 2 - tau, 0)^2    half-way between sparsemax and softmax

tau makes the weights sum to one. The support (the keys with a weight above zero) is found by sorting the scores,
without a gradient, since it is piecewise constant. Given the support, tau has a closed form, which autograd
differentiates: exact, also for second derivatives and under ``torch.vmap``, with no sort in the backward pass.

Source: Martins & Astudillo 2016, "From Softmax to Sparsemax", algorithm 1; Peters, Niculae & Martins 2019, "Sparse
Sequence-to-Sequence Models", algorithm 2.

Shapes: B batch, N heads, T queries, S keys.
"""

import torch
from torch import Tensor

from attelbo.attention.normalizers.base import Normalizer


class Sparsemax(Normalizer):
    """max(z_s - tau, 0)."""

    def normalize(self, scores: Tensor) -> Tensor:
        z = _shifted(scores)
        with torch.no_grad():
            best = z.sort(dim=-1, descending=True).values
            size = _sizes(best)
            n = (size * best > best.cumsum(-1) - 1).sum(-1, keepdim=True)
            chosen = _first(z, best, n)
            n = chosen.sum(-1, keepdim=True)
        tau = (_sum(z, chosen) - 1) / n
        return torch.relu(z - tau)  # its gradient at 0 is 0, that of clamp is 1


class Entmax15(Normalizer):
    """max(z_s / 2 - tau, 0)^2."""

    def normalize(self, scores: Tensor) -> Tensor:
        z = _shifted(0.5 * scores)
        with torch.no_grad():
            best = z.sort(dim=-1, descending=True).values
            size = _sizes(best)
            mean, square = best.cumsum(-1) / size, best.square().cumsum(-1) / size
            room = (1 / size - (square - mean.square())).clamp(min=0)
            n = (mean - room.sqrt() < best).sum(-1, keepdim=True)
            chosen = _first(z, best, n)
            n = chosen.sum(-1, keepdim=True)
        mean = _sum(z, chosen) / n
        tau = mean - ((1 - _sum((z - mean).square(), chosen)) / n).sqrt()
        return torch.relu(z - tau).square()


def _shifted(scores: Tensor) -> Tensor:
    """Scores shifted to a maximum of 0, which changes no weight. Scores 1 or more below it get no weight; they are
    clamped at -2, so that sums stay accurate whatever the masked scores are."""
    return (scores - scores.detach().amax(-1, keepdim=True)).clamp(min=-2)


def _sizes(best: Tensor) -> Tensor:
    """1, 2, ..., S."""
    return torch.arange(1, best.shape[-1] + 1, device=best.device, dtype=best.dtype)


def _first(z: Tensor, best: Tensor, n: Tensor) -> Tensor:
    """Which keys are the first n (..., 1) of those sorted by their score, ``best``, or tied with the last of them."""
    return z >= best.gather(-1, (n - 1).clamp(min=0))  # where scores are NaN, n is 0, and the weights become NaN


def _sum(z: Tensor, chosen: Tensor) -> Tensor:
    return z.masked_fill(~chosen, 0.0).sum(-1, keepdim=True)
