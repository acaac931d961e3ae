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
from typing import NamedTuple, Protocol

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


class Information(NamedTuple):
    """Two estimates, and two more that add up to the second, NaN if not requested; each with its standard error, over
    the noise in z and the rows. Nats."""

    mutual_information: float
    mutual_information_std_error: float
    aggregate_kl: float
    aggregate_kl_std_error: float
    total_correlation: float = math.nan
    total_correlation_std_error: float = math.nan
    dimension_wise_kl: float = math.nan
    dimension_wise_kl_std_error: float = math.nan
    bias: float = 0.0
    """By how much, about, the first is too small for the source of the rows, and the second and third too large, nats;
    infinite where each sample is explained by its own row alone. Errors do not include it."""


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


def estimate_information(
    z: Tensor,
    log_q: Tensor,
    log_p: Tensor,
    posteriors: Sequence[Density],
    sizes: Sequence[int],
    log_marginals: Tensor | None = None,
    some: Tensor | None = None,
) -> Information:
    """Mutual information and aggregate KL of N rows.

    Args:
        z: one sample of q(z|x_n) for each row, (N, *E).
        log_q: log q(z_n|x_n), (N,), nats.
        log_p: log p(z_n), (N,), nats.
        posteriors: q(z|x) of the N rows, in batches.
        sizes: how many rows each batch has.
        log_marginals: sum_d log q(z_d) at these samples, (N,), nats, for the terms of the aggregate KL.
        some: the samples at which ``log_marginals`` was computed, (M,) int64; None: all. For some, the terms add up to
            the aggregate KL within its error only.

    Raises:
        ValueError: not one sample for each row.
    """
    if not len(z) == len(log_q) == len(log_p) == sum(sizes):
        raise ValueError(f"one sample for each of {sum(sizes)} rows, got {len(z)}, {len(log_q)} and {len(log_p)}")
    aggregate = aggregate_log_prob(z, posteriors, sizes)
    log_p = log_p.double()
    terms = [log_q.double() - aggregate, aggregate - log_p]
    if log_marginals is not None:
        if some is not None:
            aggregate, log_p = aggregate[some], log_p[some]
        terms += [aggregate - log_marginals, log_marginals - log_p]
    numbers = [number for term in terms for number in _mean_and_error(term)]
    # A row may seem to have more than all of q(z_n) where rounding decides.
    share = float((terms[0] - math.log(len(z))).exp().clamp(max=1.0).mean())
    return Information(*numbers)._replace(bias=-math.log1p(-share) if share < 1 else math.inf)


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
