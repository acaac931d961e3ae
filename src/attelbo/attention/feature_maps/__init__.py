"""Attention for convolutional networks: blocks from a feature map (B, C, H, W) of any size to one of the same size.

All take and give channels_last maps. Attention between pixels is residual and starts as the identity; attention over
channels or places multiplies its input.
"""

from collections.abc import Callable
from typing import Literal

from torch import nn

from attelbo.attention.feature_maps.axial import AxialAttention2d
from attelbo.attention.feature_maps.cbam import CBAM
from attelbo.attention.feature_maps.non_local import NonLocal2d
from attelbo.attention.feature_maps.self_attention import SelfAttention2d
from attelbo.attention.feature_maps.squeeze_excite import SqueezeExcite
from attelbo.attention.feature_maps.window import WindowAttention2d

FeatureMapAttention = Literal["self", "non_local", "axial", "window", "squeeze_excite", "cbam"]

FEATURE_MAP_ATTENTION: dict[FeatureMapAttention, Callable[[int, int], nn.Module]] = {
    "self": SelfAttention2d,
    "non_local": lambda channels, heads: NonLocal2d(channels),
    "axial": AxialAttention2d,
    "window": WindowAttention2d,
    "squeeze_excite": lambda channels, heads: SqueezeExcite(channels),
    "cbam": lambda channels, heads: CBAM(channels),
}
"""The blocks by name, each made of the number of channels and of heads, where it has heads."""

__all__ = [
    "CBAM",
    "FEATURE_MAP_ATTENTION",
    "AxialAttention2d",
    "FeatureMapAttention",
    "NonLocal2d",
    "SelfAttention2d",
    "SqueezeExcite",
    "WindowAttention2d",
]
