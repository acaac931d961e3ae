"""Float32 arithmetic for inputs in half precision."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def full_precision(t: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are, without a copy."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def rms_normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """The norm of x, computed in float32 at least and rounded to the type of x at the end; also for modules in half
    precision."""
    weight = None if norm.weight is None else full_precision(norm.weight)
    return F.rms_norm(full_precision(x), norm.normalized_shape, weight, norm.eps).to(x.dtype)
