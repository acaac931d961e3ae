"""Full precision for what half precision would round away."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def full_precision(t: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are, without a copy."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def rms_normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """What the norm makes of x, in float32 at least and rounded only then; of modules in half precision too."""
    weight = None if norm.weight is None else full_precision(norm.weight)
    return F.rms_norm(full_precision(x), norm.normalized_shape, weight, norm.eps).to(x.dtype)
