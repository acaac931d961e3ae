"""Residual encoder and decoder: group normalization, pre-activation blocks, identity at the start.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks" (pre-activation); Wu & He 2018
(group normalization); the layout by levels is that of Ho et al. 2020 (DDPM) without skips between
encoder and decoder. Ours differs: one attention block for each chosen level.

Shapes: B batch, N rows of latents, level i of L has channels[i] maps of H / 2^i x W / 2^i pixels, rounded
up: the first level works at the size of the image.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.attention import FeatureMapAttention
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.layers import (
    Activation,
    ToFeatureMap,
    activation_layer,
    attention_layer,
    channels_last,
    check_attention_at,
    halvings,
    image_shape,
    initialize,
    levels,
    positive,
)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))) on feature maps (N, C, H, W); the last convolution starts at zero."""

    def __init__(self, channels: int, groups: int, activation: Activation) -> None:
        super().__init__()
        last = initialize(nn.Conv2d(channels, channels, 3, padding=1))
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(
            nn.GroupNorm(groups, channels),
            activation_layer(activation),
            initialize(nn.Conv2d(channels, channels, 3, padding=1), activation),
            nn.GroupNorm(groups, channels),
            activation_layer(activation),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


def _level(
    channels: int,
    height: int,
    blocks: int,
    groups: int,
    activation: Activation,
    attention_at: Sequence[int],
    attention: FeatureMapAttention,
    heads: int,
) -> list[nn.Module]:
    """What happens at one level, without change of shape: residual blocks, then attention where asked for."""
    layers: list[nn.Module] = [ResidualBlock(channels, groups, activation) for _ in range(blocks)]
    if height in attention_at:
        layers += [attention_layer(attention, channels, heads)]
    return layers


def _check(channels: Sequence[int], blocks: int, groups: int) -> None:
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}")
    # A group of one channel on a map of one pixel would be normalized to nothing.
    if groups < 1 or any(c % groups or c == groups for c in channels):
        raise ValueError(
            f"groups must divide the channels of each level into groups of at least two: "
            f"got {groups} for channels {list(channels)}"
        )


class ResNetEncoder(Encoder):
    """x (B, C, H, W) -> the smallest feature map (B, channels[-1], H / 2^(L-1), W / 2^(L-1)), rounded up.

    Args:
        in_shape: (C, H, W).
        channels: of each level, from x on; height and width halve between levels.
        blocks: residual blocks in each level.
        groups: of the group normalization; must divide the channels into groups of at least two.
        activation: before each convolution of a block.
        attention_at: the heights of the levels at whose end there is attention.
        attention: which, one of ``FEATURE_MAP_ATTENTION``.
        heads: of each attention that has heads; must divide the channels there.

    Raises:
        ValueError: not an image, a size below 1, groups or heads that do not divide the channels, a height
            in ``attention_at`` that does not occur, no such activation or attention.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        groups: int = 8,
        activation: Activation = "silu",
        attention_at: Sequence[int] = (),
        attention: FeatureMapAttention = "self",
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        channels = levels(channels)
        sizes = halvings(self.in_shape[1:], len(channels) - 1)
        _check(channels, blocks, groups)
        check_attention_at(attention_at, sizes)
        self.out_shape = (channels[-1], *sizes[-1])

        layers: list[nn.Module] = [initialize(nn.Conv2d(self.in_shape[0], channels[0], 3, padding=1))]
        for level, (c, (height, _)) in enumerate(zip(channels, sizes, strict=True)):
            if level > 0:
                layers += [initialize(nn.Conv2d(channels[level - 1], c, 3, stride=2, padding=1))]
            layers += _level(c, height, blocks, groups, activation, attention_at, attention, heads)
        layers += [nn.GroupNorm(groups, channels[-1]), activation_layer(activation)]
        self.layers = nn.Sequential(*layers)
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResNetDecoder(Decoder):
    """z of any shape -> eta (N, *out_shape), the mirror image of a ``ResNetEncoder`` with reversed channels.

    Between levels, pixels are repeated (nearest neighbour) to exactly the next size and convolved, which
    leaves no checkerboard (Odena et al. 2016).

    Args:
        in_shape: the shape of one z.
        out_shape: (P * C, H, W).
        channels: of each level, from z on; height and width double between levels.
        blocks: residual blocks in each level.
        groups: of the group normalization; must divide the channels into groups of at least two.
        activation: before each convolution of a block.
        attention_at: the heights of the levels at whose end there is attention.
        attention: which, one of ``FEATURE_MAP_ATTENTION``.
        heads: of each attention that has heads; must divide the channels there.

    Raises:
        ValueError: as ``ResNetEncoder``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        channels: Sequence[int] = (64, 32, 16),
        blocks: int = 1,
        groups: int = 8,
        activation: Activation = "silu",
        attention_at: Sequence[int] = (),
        attention: FeatureMapAttention = "self",
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        channels = levels(channels)
        sizes = halvings(self.out_shape[1:], len(channels) - 1)[::-1]
        _check(channels, blocks, groups)
        check_attention_at(attention_at, sizes)

        layers: list[nn.Module] = [ToFeatureMap(self.in_shape, channels[0], sizes[0])]
        for level, (c, size) in enumerate(zip(channels, sizes, strict=True)):
            if level > 0:
                layers += [nn.Upsample(size=size, mode="nearest")]
                layers += [initialize(nn.Conv2d(channels[level - 1], c, 3, padding=1))]
            layers += _level(c, size[0], blocks, groups, activation, attention_at, attention, heads)
        layers += [nn.GroupNorm(groups, channels[-1]), activation_layer(activation)]
        self.layers = nn.Sequential(*layers)
        self.output = initialize(nn.Conv2d(channels[-1], self.out_shape[0], 3, padding=1))
        channels_last(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).contiguous()  # laid out like x, beside which the likelihood reads it
