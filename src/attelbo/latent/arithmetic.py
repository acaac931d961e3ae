"""Arithmetic that all parts share: sums over an event, in full precision.

Under autocast a network gives bfloat16 or float16, in which a sum over 784 pixels is useless; every part therefore
converts its inputs to full precision before the first logarithm.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)

LOG_STD_BOUND = 10.0
"""The logarithm of a posterior's standard deviation is clamped to [-10, 10] (std in 4.5e-5 .. 2.2e4).

Inside, nothing changes; outside, the gradient is zero. Without it, one extreme activation overflows exp(2 * log_std)
and the run is lost to NaN."""

SMALL = 0.25
"""Below it, power series replace differences of hyperbolic functions, which would cancel: accurate to 1e-14."""


def full_precision(t: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are, without a copy."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def bound_log_std(t: Tensor) -> Tensor:
    """t clamped to [-LOG_STD_BOUND, LOG_STD_BOUND]."""
    # The gradient of Tensor.clamp takes five operations, that of hardtanh one.
    return F.hardtanh(t, -LOG_STD_BOUND, LOG_STD_BOUND)


def sum_event(t: Tensor, batch_dims: int) -> Tensor:
    """Sum over all dimensions but the first ``batch_dims``, whatever the memory format (no copy)."""
    return t.sum(tuple(range(batch_dims, t.dim()))) if t.dim() > batch_dims else t


def log_sinhc(a: Tensor) -> Tensor:
    """log(sinh(a) / a) of a >= 0."""
    large = a.clamp(min=SMALL)  # both branches are computed, and neither may send NaN into the gradient
    far = large + (-torch.expm1(-2 * large) / (2 * large)).log()
    s = a.clamp(max=SMALL).square()
    near = s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - s / 467775))))
    return torch.where(a < SMALL, near, far)
