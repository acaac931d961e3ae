"""Shared by the networks: activations, initial weights, the sizes of feature maps.

Shapes: N rows, C channels, H x W pixels.

Sizes follow one rule, in encoders and decoders: a level down halves the height and the width, rounding
up, so 7 x 5 -> 4 x 3 -> 2 x 2 -> 1 x 1 -> 1 x 1, and every image size goes through. A decoder computes the
same list from the size of its output and climbs it, to exactly the right size.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from attelbo.attention import FEATURE_MAP_ATTENTION, FeatureMapAttention

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
Module = TypeVar("Module", bound=nn.Module)

Size = tuple[int, int]
"""(H, W)."""

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "silu", "gelu"]
LinearActivation = Activation | Literal["glu"]
"""Behind linear layers; ``glu`` is u sigmoid(v), u and v from twice as many units (Dauphin et al. 2017)."""

# The layer, and 1 / sqrt(E[f(u)^2]) for u ~ N(0, 1): the gain with which weights before it keep the second
# moment of their signal (He et al. 2015, section 2.2, for other f than the ReLU too). None: Glorot-uniform.
_ACTIVATIONS: dict[str, tuple[type[nn.Module], float | None]] = {
    "tanh": (nn.Tanh, None),
    "relu": (nn.ReLU, 1.4142),
    "leaky_relu": (nn.LeakyReLU, 1.4141),
    "elu": (nn.ELU, 1.2452),
    "silu": (nn.SiLU, 1.6765),
    "gelu": (nn.GELU, 1.5335),
}
_GLU_GAIN = 1.8462


def _look_up(name: str) -> tuple[type[nn.Module], float | None]:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]


def activation_layer(name: Activation, *, overwrite: bool = False) -> nn.Module:
    """The activation with this name.

    Args:
        name: which.
        overwrite: it may work in place, if its derivative can be computed from its output: safe after convolutions,
            which do not need their output again, and saves a write to memory.

    Raises:
        ValueError: no such name.
    """
    layer, _ = _look_up(name)
    return layer(inplace=True) if overwrite and issubclass(layer, nn.ReLU | nn.LeakyReLU | nn.ELU) else layer()


def attention_layer(name: FeatureMapAttention, channels: int, heads: int) -> nn.Module:
    """The attention with this name, on feature maps of this number of channels.

    Raises:
        ValueError: no such name, or heads that do not divide the channels.
    """
    if name not in FEATURE_MAP_ATTENTION:
        raise ValueError(f"attention must be one of {', '.join(FEATURE_MAP_ATTENTION)}, got {name!r}")
    return FEATURE_MAP_ATTENTION[name](channels, heads)


NEAR_ZERO = 0.1
"""How much smaller the weights of a last layer begin whose outputs are parameters of a density of real numbers: it then
begins with about the same standard deviation everywhere. One that begins near zero somewhere has a loss of thousands of
nats, and Adam's second moment remembers its gradient for thousands of steps."""


def initialize(layer: Layer, activation: LinearActivation | None = None, scale: float = 1.0) -> Layer:
    """Give a layer its initial weights, according to the ``activation`` that follows it; biases zero.

    Before tanh, and for output layers: Glorot-uniform, as in the IWAE authors' code. Before the others: normal with
    variance gain^2 / fan_in. The fans count what a unit actually sums: of the k^2 taps of a transposed convolution with
    stride s, k^2 / s^2 reach a pixel on average (torch counts all of them, and takes the output channels for the
    input's). All of it times ``scale``.

    Raises:
        ValueError: no such activation.
    """
    fan_in, fan_out = _fans(layer)
    gain = None if activation is None else _GLU_GAIN if activation == "glu" else _look_up(activation)[1]
    if gain is None:
        bound = scale * math.sqrt(6 / (fan_in + fan_out))
        nn.init.uniform_(layer.weight, -bound, bound)
    else:
        nn.init.normal_(layer.weight, std=scale * gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _fans(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> tuple[float, float]:
    """Mean number of inputs that reach an output, and of outputs that an input reaches."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    taps, strides = math.prod(layer.kernel_size), math.prod(layer.stride)
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * taps / strides, layer.out_channels * taps
    return layer.in_channels * taps, layer.out_channels * taps / strides


def hidden_layers(sizes: Sequence[int], activation: LinearActivation, batch_norm: bool = False) -> list[nn.Module]:
    """Linear layers between these numbers of features, each followed by an activation, with batch normalization before
    it if asked."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        units, after = (2 * n_out, nn.GLU()) if activation == "glu" else (n_out, activation_layer(activation))
        norm = [nn.BatchNorm1d(units)] if batch_norm else []
        layers += [initialize(nn.Linear(n_in, units), activation), *norm, after]
    return layers


def relu_layers(sizes: Sequence[int], scale: float = 1.0) -> nn.Sequential:
    """Linear layers between these numbers of features, with ReLUs between them; the last one ``scale`` times as large
    as others at the start."""
    last = initialize(nn.Linear(sizes[-2], sizes[-1]), scale=scale)
    return nn.Sequential(*hidden_layers(sizes[:-1], "relu"), last)


class ToFeatureMap(nn.Module):
    """z (N, *E) -> a feature map (N, C, H, W) by one linear layer, channels_last without a copy.

    Where z is a map of this size already, (D, H, W), the layer is the same for all of its pixels, a 1 x 1 convolution;
    else z is flattened.
    """

    def __init__(
        self, in_shape: Sequence[int], channels: int, size: Size, activation: Activation | None = None
    ) -> None:
        super().__init__()
        self.by_pixel = len(in_shape) == 3 and tuple(in_shape[1:]) == size
        inputs, outputs = (in_shape[0], 1) if self.by_pixel else (math.prod(in_shape), math.prod(size))
        self.linear = initialize(nn.Linear(inputs, outputs * channels), activation)
        self.map_shape = (*size, channels)

    def forward(self, z: Tensor) -> Tensor:
        pixels = self.linear(z.permute(0, 2, 3, 1) if self.by_pixel else z.flatten(1))
        return pixels.view(-1, *self.map_shape).permute(0, 3, 1, 2)


def channels_last(module: Module) -> Module:
    """Store the convolutions' weights channels_last; from the first of them on, so is every feature map."""
    return module.to(memory_format=torch.channels_last)


def halvings(size: Size, n: int) -> list[Size]:
    """The size and its ``n`` halvings, rounded up: n + 1 sizes, from the image to the smallest map."""
    sizes = [size]
    for _ in range(n):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def positive(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """The values as a tuple.

    Raises:
        ValueError: one of them is below 1.
    """
    if any(value < 1 for value in values):
        raise ValueError(f"{name} must be positive numbers, got {list(values)}")
    return tuple(values)


def image_shape(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape as (C, H, W).

    Raises:
        ValueError: it is the shape of something else.
    """
    if len(shape) != 3:
        remedy = "; vectors are for models with model/encoder=mlp model/decoder=mlp" * (len(shape) == 1)
        raise ValueError(f"{name} must be (channels, height, width), those of images, got {tuple(shape)}{remedy}")
    channels, height, width = positive(name, shape)
    return channels, height, width


def levels(channels: Sequence[int]) -> tuple[int, ...]:
    """The channels of each level as a tuple.

    Raises:
        ValueError: there is none, or one of them is below 1.
    """
    if not channels:
        raise ValueError("channels must name at least one level, got []")
    return positive("channels", channels)


def check_attention_at(attention_at: Sequence[int], sizes: Sequence[Size]) -> None:
    """Check that every height in ``attention_at`` is that of a feature map.

    Raises:
        ValueError: it is not. The message names the existing heights.
    """
    heights = sorted({height for height, _ in sizes}, reverse=True)
    missing = [height for height in attention_at if height not in heights]
    if missing:
        raise ValueError(f"attention_at must name heights of feature maps: {heights} occur, {missing} do not")


class Standardize(nn.Module):
    """(x - mean) / std of each channel of x (B, C, H, W), with the mean and standard deviation of the training images,
    once learned; saved with the weights. Until then the identity.

    Args:
        channels: C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def learn(self, mean: Tensor, std: Tensor) -> None:
        """Set both, (C,) each; a constant channel is only shifted."""
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.where(std > 0, 1.0).view_as(self.std))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
