"""Residual encoder and decoder: group normalization, pre-activation blocks, identity at the start.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks" (pre-activation); Wu & He 2018
(group normalization); the layout by levels is that of Ho et al. 2020 (DDPM) without skips between
encoder and decoder; with a middle it is the autoencoder of Esser et al. 2021, "Taming Transformers for
High-Resolution Image Synthesis", and of Rombach et al. 2022, "High-Resolution Image Synthesis with Latent
Diffusion Models" (AutoencoderKL). Ours differs from these: one attention block for each chosen level, not one after
each residual block; as many residual blocks in the decoder as in the encoder, not one more for each level; channels
change where the size does; the convolutions on both sides of z are one linear map of each pixel, the posterior's head
and the decoder's first layer.

Shapes: B batch, N rows of latents, level i of L has channels[i] maps of H / 2^i x W / 2^i pixels, rounded
up: the first level works at the size of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from attelbo.attention import FeatureMapAttention
from attelbo.checks import check_repetitions
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.layers import (
    Activation,
    Size,
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


@dataclass(frozen=True)
class _Levels:
    """The layers of one level, which do not change the shape: settings that all levels share."""

    blocks: int
    groups: int
    activation: Activation
    attention_at: Sequence[int]
    attention: FeatureMapAttention | None
    heads: int

    def __post_init__(self) -> None:
        check_repetitions(blocks=self.blocks)
        if self.attention is None and self.attention_at:
            raise ValueError(f"attention_at must be [] where attention is null, got {list(self.attention_at)}")

    def check(self, channels: Sequence[int], sizes: Sequence[Size]) -> None:
        """Raise ValueError unless the levels can have these channels and sizes."""
        # A group of one channel on a map of one pixel would be normalized to zero.
        if self.groups < 1 or any(c % self.groups or c == self.groups for c in channels):
            raise ValueError(
                f"groups must divide the channels of each level into groups of at least two: "
                f"got {self.groups} for channels {list(channels)}"
            )
        check_attention_at(self.attention_at, sizes)

    def level(self, channels: int, height: int) -> list[nn.Module]:
        """Residual blocks, then attention where asked for."""
        layers = [self._block(channels) for _ in range(self.blocks)]
        return [*layers, *(self._attention(channels) if height in self.attention_at else [])]

    def middle(self, channels: int) -> list[nn.Module]:
        """A residual block, attention if there is any, and a residual block."""
        return [self._block(channels), *self._attention(channels), self._block(channels)]

    def _block(self, channels: int) -> nn.Module:
        return ResidualBlock(channels, self.groups, self.activation)

    def _attention(self, channels: int) -> list[nn.Module]:
        return [] if self.attention is None else [attention_layer(self.attention, channels, self.heads)]


class ResNetEncoder(Encoder):
    """x (B, C, H, W) -> the smallest feature map (B, channels[-1], H / 2^(L-1), W / 2^(L-1)), rounded up.

    Args:
        in_shape: (C, H, W).
        channels: of each level, from x on; height and width halve between levels.
        blocks: residual blocks in each level.
        groups: of the group normalization; must divide the channels into groups of at least two.
        activation: before each convolution of a block.
        attention_at: the heights of the levels at whose end there is attention.
        attention: which, one of ``FEATURE_MAP_ATTENTION``; None: none, not in the middle either.
        heads: of each attention that has heads; must divide the channels there.
        middle: whether to add two residual blocks with attention between them at the smallest size.

    Raises:
        ValueError: not an image, a size below 1, groups or heads that do not divide the channels, a height
            in ``attention_at`` that does not occur or without attention, no such activation or attention.
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
        attention: FeatureMapAttention | None = "self",
        heads: int = 4,
        middle: bool = False,
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        channels = levels(channels)
        sizes = halvings(self.in_shape[1:], len(channels) - 1)
        shared = _Levels(blocks, groups, activation, attention_at, attention, heads)
        shared.check(channels, sizes)
        self.out_shape = (channels[-1], *sizes[-1])

        layers: list[nn.Module] = [initialize(nn.Conv2d(self.in_shape[0], channels[0], 3, padding=1))]
        for level, (c, (height, _)) in enumerate(zip(channels, sizes, strict=True)):
            if level > 0:
                layers += [initialize(nn.Conv2d(channels[level - 1], c, 3, stride=2, padding=1))]
            layers += shared.level(c, height)
        layers += shared.middle(channels[-1]) if middle else []
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
        attention: which, one of ``FEATURE_MAP_ATTENTION``; None: none, not in the middle either.
        heads: of each attention that has heads; must divide the channels there.
        middle: whether to add two residual blocks with attention between them at the smallest size.

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
        attention: FeatureMapAttention | None = "self",
        heads: int = 4,
        middle: bool = False,
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        channels = levels(channels)
        sizes = halvings(self.out_shape[1:], len(channels) - 1)[::-1]
        shared = _Levels(blocks, groups, activation, attention_at, attention, heads)
        shared.check(channels, sizes)

        layers: list[nn.Module] = [ToFeatureMap(self.in_shape, channels[0], sizes[0])]
        layers += shared.middle(channels[0]) if middle else []
        for level, (c, size) in enumerate(zip(channels, sizes, strict=True)):
            if level > 0:
                layers += [nn.Upsample(size=size, mode="nearest")]
                layers += [initialize(nn.Conv2d(channels[level - 1], c, 3, padding=1))]
            layers += shared.level(c, size[0])
        layers += [nn.GroupNorm(groups, channels[-1]), activation_layer(activation)]
        self.layers = nn.Sequential(*layers)
        self.output = initialize(nn.Conv2d(channels[-1], self.out_shape[0], 3, padding=1))
        channels_last(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).contiguous()  # in the memory format of x
