"""Information in z about x: mutual information and the divergence of the aggregate posterior from the prior.

Hoffman & Johnson 2016, "ELBO surgery": with q(z) = 1/N sum_n q(z|x_n),

    1/N sum_n KL(q(z|x_n) || p(z)) = I_q(x; z) + KL(q(z) || p(z)).

Where q(z|x) and p(z) are products over the dimensions of z, the last term decomposes further (Chen et al. 2018,
"Isolating Sources of Disentanglement in VAEs", eq. 2), into total correlation and dimension-wise KL:

    KL(q(z) || p(z)) = KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || p(z_d)).

All terms are averages of log densities at one sample z_n ~ q(z|x_n) for each row, with q(z_n) over all N encodings:
unbiased estimates for these N rows. Their mutual information is at most log N. Among more rows like these it is larger,
since each row is a part of q(z_n), where it explains its own sample; the aggregate KL and its total correlation are
smaller by as much. That bias is about -log(1 - s), rather less, with s the mean share of a row in the density of its
own sample.

Shapes: N rows, B rows of one batch, M samples, E event shape of z, D its dimensions.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**21
"""Of samples times encodings: 8 MB of float32."""


class Density(Protocol):
    """q(z|x) of B rows."""

    def cross_log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x_b) of each z (n, *E) for each of the B rows, (n, B), nats."""
        ...


class FactorialDensity(Density, Protocol):
    """One that is a product over dimensions."""

    def cross_log_prob_by_dimension(self, z: Tensor) -> Tensor:
        """log q(z_d|x_b) of each z (n, *E) for each of the B rows, (n, B, D), nats."""
        ...


def aggregate_log_prob(z: Tensor, posteriors: Sequence[Density], sizes: Sequence[int]) -> Tensor:
    """log q(z) under the mixture of all encodings with equal weights.

    Args:
        z: (M, *E).
        posteriors: q(z|x) of the N rows, in batches.
        sizes: the number of rows of each batch; they add up to N.

    Returns:
        (M,), nats, float64. Memory is bounded by processing samples in parts.
    """
    total = torch.full((len(z),), -math.inf, dtype=torch.float64, device=z.device)
    for q, size in zip(posteriors, sizes, strict=True):
        at_once = max(1, _NUMBERS_AT_ONCE // (size * max(1, z[0].numel())))
        parts = [q.cross_log_prob(part).double().logsumexp(1) for part in z.split(at_once)]
        total = torch.logaddexp(total, torch.cat(parts))
    return total - math.log(sum(sizes))


def marginal_log_prob(z: Tensor, posteriors: Sequence[FactorialDensity], sizes: Sequence[int]) -> Tensor:
    """sum_d log q(z_d), each dimension under its own mixture of all encodings; arguments and result as of
    :func:`aggregate_log_prob`. It takes N M D exponentials instead of N M."""
    total = torch.full((len(z), z[0].numel()), -math.inf, dtype=torch.float64, device=z.device)
    for q, size in zip(posteriors, sizes, strict=True):
        at_once = max(1, _NUMBERS_AT_ONCE // (size * max(1, z[0].numel())))
        parts = [q.cross_log_prob_by_dimension(part).logsumexp(1).double() for part in z.split(at_once)]
        total = torch.logaddexp(total, torch.cat(parts))
    return (total - math.log(sum(sizes))).sum(1)


def information_terms(
    z: Tensor,
    log_q: Tensor,
    log_p: Tensor,
    posteriors: Sequence[Density],
    sizes: Sequence[int],
    log_marginals: Tensor | None = None,
    some: Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms whose means over N rows are the estimates, and whose spread gives their standard errors.

    Args:
        z: one sample of q(z|x_n) for each row, (N, *E).
        log_q: log q(z_n|x_n), (N,), nats.
        log_p: log p(z_n), (N,), nats.
        posteriors: q(z|x) of the N rows, in batches.
        sizes: how many rows each batch has.
        log_marginals: sum_d log q(z_d) at these samples, (N,), nats, for the terms of the aggregate KL.
        some: the samples at which ``log_marginals`` was computed, (M,) int64; None: all. For some, the terms add up to
            the aggregate KL within its error only.

    Returns:
        ``mutual_information`` and ``aggregate_kl``, (N,); with ``log_marginals`` also ``total_correlation`` and
        ``dimension_wise_kl``, (M,); nats, float64.

    Raises:
        ValueError: not one sample for each row.
    """
    if not len(z) == len(log_q) == len(log_p) == sum(sizes):
        raise ValueError(f"one sample for each of {sum(sizes)} rows, got {len(z)}, {len(log_q)} and {len(log_p)}")
    aggregate = aggregate_log_prob(z, posteriors, sizes)
    log_p = log_p.double()
    terms = {"mutual_information": log_q.double() - aggregate, "aggregate_kl": aggregate - log_p}
    if log_marginals is not None:
        if some is not None:
            aggregate, log_p = aggregate[some], log_p[some]
        terms |= {"total_correlation": aggregate - log_marginals, "dimension_wise_kl": log_marginals - log_p}
    return terms


def bias_of_few_rows(mutual_information: Tensor) -> float:
    """By how much, about, the mean of these terms (N,) is too small for the source of the rows, and the aggregate KL
    and the total correlation too large, nats; infinite where each sample is explained by its own row alone."""
    # A row may seem to have more than all of q(z_n) where rounding decides.
    share = float((mutual_information - math.log(len(mutual_information))).exp().clamp(max=1.0).mean())
    return -math.log1p(-share) if share < 1 else math.inf
