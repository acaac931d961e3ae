"""What z says about x: mutual information and the distance of the aggregate posterior from the prior.

Hoffman & Johnson 2016, "ELBO surgery": with q(z) = 1/N sum_n q(z|x_n),

    1/N sum_n KL(q(z|x_n) || p(z)) = I_q(x; z) + KL(q(z) || p(z)).

Both terms are averages of log densities at one sample z_n ~ q(z|x_n) for each row, with q(z_n) over all N encodings:
unbiased estimates, as far as these N rows go. What z says of N rows is at most log N, so a mutual information near that
says more of N than of the data, and is too small for them; the aggregate KL is then too large by as much.

Shapes: N rows, B rows of one batch, M samples, E event shape of z.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 2**21
"""Of the samples as each encoding sees them: 8 MB of float32."""


class Density(Protocol):
    """q(z|x) of B rows."""

    def cross_log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x_b) of each z (n, *E) for each of the B rows, (n, B), nats."""
        ...


class Information(NamedTuple):
    """Two estimates and their standard errors, which are those of the noise in z and of the rows; nats."""

    mutual_information: float
    mutual_information_std_error: float
    aggregate_kl: float
    aggregate_kl_std_error: float


def aggregate_log_prob(z: Tensor, posteriors: Sequence[Density], sizes: Sequence[int]) -> Tensor:
    """log q(z) under the mixture of all encodings, each with the same weight.

    Args:
        z: (M, *E).
        posteriors: q(z|x) of the N rows, in batches.
        sizes: how many rows each batch has; they add up to N.

    Returns:
        (M,), nats, float64. Memory is bounded: so many samples at a time as suit the batch.
    """
    total = torch.full((len(z),), -math.inf, dtype=torch.float64, device=z.device)
    for q, size in zip(posteriors, sizes, strict=True):
        at_once = max(1, _NUMBERS_AT_ONCE // (size * max(1, z[0].numel())))
        parts = [q.cross_log_prob(part).double().logsumexp(1) for part in z.split(at_once)]
        total = torch.logaddexp(total, torch.cat(parts))
    return total - math.log(sum(sizes))


def estimate_information(
    z: Tensor, log_q: Tensor, log_p: Tensor, posteriors: Sequence[Density], sizes: Sequence[int]
) -> Information:
    """Mutual information and aggregate KL of N rows.

    Args:
        z: one sample of q(z|x_n) for each row, (N, *E).
        log_q: log q(z_n|x_n), (N,), nats.
        log_p: log p(z_n), (N,), nats.
        posteriors: q(z|x) of the N rows, in batches.
        sizes: how many rows each batch has.

    Raises:
        ValueError: not one sample for each row.
    """
    if not len(z) == len(log_q) == len(log_p) == sum(sizes):
        raise ValueError(f"one sample for each of {sum(sizes)} rows, got {len(z)}, {len(log_q)} and {len(log_p)}")
    aggregate = aggregate_log_prob(z, posteriors, sizes)
    return Information(*_mean_and_error(log_q.double() - aggregate), *_mean_and_error(aggregate - log_p.double()))


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
