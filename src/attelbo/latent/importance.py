"""The log-likelihood by importance sampling, in chunks that bound the memory.

Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", sec. 5; the effective sample
size: Kong 1992.

Shapes: k samples in a chunk, B batch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least


class ImportanceEstimate(NamedTuple):
    """The estimate of log p(x) from S importance samples; each (B,), float64."""

    log_likelihood: Tensor
    """log (1/S sum_s w_s), nats: in expectation a lower bound on log p(x), tighter the larger S."""
    effective_sample_size: Tensor
    """(sum w)^2 / sum w^2, between 1 and S: far below S, the estimate rests on few samples."""
    standard_error: Tensor
    """Of ``log_likelihood``, nats, by the delta method; infinite for a single sample."""


@torch.no_grad()
def estimate_log_likelihood(
    log_weights_fn: Callable[[int], Tensor], n_samples: int, chunk: int = 100
) -> ImportanceEstimate:
    """Estimate log p(x) from exactly ``n_samples`` importance samples, whatever the chunk.

    Args:
        log_weights_fn: k -> log p(x, z) - log q(z|x) of k fresh samples, (k, B), nats.
        n_samples: S.
        chunk: samples drawn in one call; the last call draws the rest.

    Raises:
        ValueError: n_samples or chunk below 1, or another number of weights than was asked for.
    """
    check_at_least(1, n_samples=n_samples, chunk=chunk)
    log_sum = log_sum_of_squares = torch.tensor(-math.inf, dtype=torch.float64)
    for start in range(0, n_samples, chunk):
        k = min(chunk, n_samples - start)
        log_weights = log_weights_fn(k)
        if len(log_weights) != k:
            raise ValueError(f"log_weights_fn gave {len(log_weights)} samples where {k} were asked for")
        # In float64: thousands of float32 additions to a number near -100 would cost the fifth digit.
        log_weights = log_weights.double()
        log_sum = torch.logaddexp(log_sum.to(log_weights.device), log_weights.logsumexp(0))
        log_sum_of_squares = torch.logaddexp(log_sum_of_squares.to(log_weights.device), (2 * log_weights).logsumexp(0))
    # Where every weight is zero there is no effective sample.
    effective = (2 * log_sum - log_sum_of_squares).exp().masked_fill(log_sum.isneginf(), 0.0)
    # Var(mean w) / (mean w)^2 = (S sum w^2 / (sum w)^2 - 1) / (S - 1)
    excess = (n_samples / effective - 1).clamp(min=0)
    error = (excess / (n_samples - 1)).sqrt() if n_samples > 1 else torch.full_like(log_sum, math.inf)
    return ImportanceEstimate(log_sum - math.log(n_samples), effective, error)
