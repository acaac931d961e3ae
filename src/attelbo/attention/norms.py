"""Norms over the E features of a token, and a substitute for one.

    layer          g (x - mean) / std + b         Ba, Kiros & Hinton 2016
    rms            g x / rms(x)                   Zhang & Sennrich 2019, eq. 4
    scale          g x / |x|, one g for all       Nguyen & Salazar 2019, eq. 5; at the start sqrt(E)
    dynamic_tanh   g tanh(a x) + b, one a         Zhu et al. 2025, "Transformers without Normalization", eq. 2; a = 1/2

Shapes: E features of a token.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.precision import full_precision, rms_normed
from attelbo.checks import check_choice

NormName = Literal["layer", "rms", "scale", "dynamic_tanh"]


class RMSNorm(nn.RMSNorm):
    """x (..., E) -> (..., E); torch's own warns where x and its weight are of different types, as under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_normed(x, self)


class ScaleNorm(nn.Module):
    """x (..., E) -> (..., E), scaled to the same length, which is learned."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.tensor(dim**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return (full_precision(self.length) * F.normalize(full_precision(x), dim=-1)).to(x.dtype)


class DynamicTanh(nn.Module):
    """x (..., E) -> (..., E), elementwise: small inputs stay small. A language model, whose embeddings start small,
    therefore learns slowly until they have grown; the paper multiplies them by a learned scalar."""

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight * torch.tanh(self.slope * x)
        return y if self.bias is None else y + self.bias


def norm_layer(name: NormName, dim: int, bias: bool = True) -> nn.Module:
    """The norm of this name over the E features of a token, with a ``bias`` if this kind of norm has one.

    Raises:
        ValueError: no such norm.
    """
    check_choice("norm", name, NormName)
    if name == "layer":
        return nn.LayerNorm(dim, bias=bias)
    if name == "dynamic_tanh":
        return DynamicTanh(dim, bias)
    return RMSNorm(dim) if name == "rms" else ScaleNorm(dim)
