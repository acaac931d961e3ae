"""Norms over the E features of a token.

Source: LayerNorm: Ba, Kiros & Hinton 2016; RMSNorm: Zhang & Sennrich 2019, eq. 4.
"""

from typing import Literal

from torch import nn

from attelbo.checks import check_choice

NormName = Literal["layer", "rms"]


def norm_layer(name: NormName, dim: int, bias: bool = True) -> nn.Module:
    """The norm with this name, over the E features of a token; ``bias`` is a LayerNorm's.

    Raises:
        ValueError: no such norm.
    """
    check_choice("norm", name, NormName)
    return nn.LayerNorm(dim, bias=bias) if name == "layer" else nn.RMSNorm(dim)
