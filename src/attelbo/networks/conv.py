"""Convolutional encoder and decoder: a strided 3 x 3 convolution for each level.

Source: the all-convolutional layout of Radford et al. 2016 (DCGAN). Ours differs: no batch normalization
(it ties the rows of a batch together), 3 x 3 instead of 4 x 4 so that any image size goes through, and
optional attention on chosen feature maps.

Shapes: B batch, N rows of latents, level i of L has channels[i] maps; sizes as in ``networks.layers``.
"""

from collections.abc import Sequence
from itertools import pairwise

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
from attelbo.networks.transposed import TransposedConv2d


class ConvEncoder(Encoder):
    """x (B, C, H, W) -> the smallest feature map (B, channels[-1], H / 2^L, W / 2^L), sizes rounded up.

    Args:
        in_shape: (C, H, W).
        channels: of each level, from x on; each level halves height and width.
        activation: after each convolution.
        attention_at: the heights of feature maps after which there is attention.
        attention: which, one of ``FEATURE_MAP_ATTENTION``.
        heads: of each attention that has heads; must divide the channels there.

    Raises:
        ValueError: not an image, a size below 1, a height in ``attention_at`` that does not occur, heads
            that do not divide the channels, no such activation or attention.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 64, 128),
        activation: Activation = "relu",
        attention_at: Sequence[int] = (),
        attention: FeatureMapAttention = "self",
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        channels = levels(channels)
        sizes = halvings(self.in_shape[1:], len(channels))[1:]
        check_attention_at(attention_at, sizes)
        self.out_shape = (channels[-1], *sizes[-1])

        layers: list[nn.Module] = []
        for (c_in, c_out), (height, _) in zip(pairwise((self.in_shape[0], *channels)), sizes, strict=True):
            layers += [initialize(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), activation)]
            layers += [activation_layer(activation, overwrite=True)]
            if height in attention_at:
                layers += [attention_layer(attention, c_out, heads)]
        self.layers = nn.Sequential(*layers)
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ConvDecoder(Decoder):
    """z of any shape -> eta (N, *out_shape), the mirror image of a ``ConvEncoder`` with reversed channels.

    Args:
        in_shape: the shape of one z.
        out_shape: (P * C, H, W).
        channels: of each level, from z on; each level doubles height and width.
        activation: after each layer but the last.
        attention_at: the heights of feature maps after which there is attention.
        attention: which, one of ``FEATURE_MAP_ATTENTION``.
        heads: of each attention that has heads; must divide the channels there.

    Raises:
        ValueError: as ``ConvEncoder``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        channels: Sequence[int] = (128, 64, 32),
        activation: Activation = "relu",
        attention_at: Sequence[int] = (),
        attention: FeatureMapAttention = "self",
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        channels = levels(channels)
        *sizes, image = reversed(halvings(self.out_shape[1:], len(channels)))
        check_attention_at(attention_at, sizes)

        layers: list[nn.Module] = [ToFeatureMap(self.in_shape, channels[0], sizes[0], activation)]
        for level, (size, c) in enumerate(zip(sizes, channels, strict=True)):
            if level > 0:
                layers += [initialize(TransposedConv2d(channels[level - 1], c, sizes[level - 1], size), activation)]
            layers += [activation_layer(activation, overwrite=level > 0)]
            if size[0] in attention_at:
                layers += [attention_layer(attention, c, heads)]
        self.layers = nn.Sequential(*layers)
        self.output = initialize(TransposedConv2d(channels[-1], self.out_shape[0], sizes[-1], image))
        channels_last(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).contiguous()  # in the memory format of x
