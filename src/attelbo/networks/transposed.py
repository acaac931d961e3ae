"""The transpose of a strided 3 x 3 convolution, by kernels that are fast on a CPU.

torch's transposed convolution is slow on a CPU in two places, measured in ``benchmarks/NOTES.md``: with one output
channel, as in the layer that gives eta, it takes five times as long as the equivalent matrix product; and with many,
channels_last, the gradient of the weight takes twice as long as the same sums computed as the gradient of an ordinary
convolution.

Shapes: N rows, I and O channels, H x W pixels in, H' x W' out, weight (I, O, 3, 3) as torch has it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.networks.layers import Size

KERNEL, STRIDE, PADDING = 3, 2, 1

MANY = 32
"""Output channels from which the gradient of the weight is computed the other way."""


class TransposedConv2d(nn.ConvTranspose2d):
    """x (N, I, H, W) -> (N, O, H', W'): the transpose of a 3 x 3 convolution with stride 2 and padding 1.

    The same function, with the same parameters, as ``torch.nn.ConvTranspose2d``, which is used on other devices and
    under autocast.

    Args:
        in_channels: I.
        out_channels: O.
        size: (H, W).
        target: (H', W'): 2 n - 1 pixels for an input of n, or one more.
    """

    def __init__(self, in_channels: int, out_channels: int, size: Size, target: Size) -> None:
        extra = _output_padding(size, target)
        super().__init__(in_channels, out_channels, KERNEL, STRIDE, PADDING, output_padding=extra)
        self.target = target
        # The taps of all output channels are then no more numbers than the channels of an input pixel.
        self._few = KERNEL**2 * out_channels <= in_channels

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert output_size is None, "the size is fixed"
        if input.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            if self._few:
                return _FewChannels.apply(input, self.weight, self.bias, self.target)
            if self.out_channels >= MANY:
                return _ManyChannels.apply(input, self.weight, self.bias, self.target)
        return super().forward(input)


class _Transposed(torch.autograd.Function):
    """What both ways save for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Size], output: Tensor) -> None:
        x, weight, _, ctx.target = inputs
        ctx.save_for_backward(x, weight)


class _FewChannels(_Transposed):
    """Forward by definition: each input pixel scatters its taps onto the output, where they add up."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, target: Size) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H W, I), a view of a channels_last x
        taps = weight.flatten(1).mT @ pixels.mT  # (N, 9 O, H W)
        return F.fold(taps, target, KERNEL, padding=PADDING, stride=STRIDE) + bias.view(-1, 1, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        extra, outputs, wanted = _output_padding(x.shape[-2:], ctx.target), [weight.shape[1]], [True, True, True]
        return *_backward(gradients[0], x, weight, outputs, True, extra, wanted), None


class _ManyChannels(_Transposed):
    """Backward computes the gradient of the weight as that of the convolution from the output to x."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, target: Size) -> Tensor:
        return F.conv_transpose2d(x, weight, bias, STRIDE, PADDING, _output_padding(x.shape[-2:], target))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        by_x = F.conv2d(gradient, weight, None, STRIDE, PADDING)
        _, by_weight, _ = _backward(x, gradient, weight, None, False, (0, 0), [False, True, False])
        return by_x, by_weight, gradient.sum((0, 2, 3)), None


def _output_padding(size: Sequence[int], target: Sequence[int]) -> Size:
    """torch's output padding: the transpose gives 2 n - 1 pixels for n without it."""
    return target[0] - (2 * size[0] - 1), target[1] - (2 * size[1] - 1)


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    transposed: bool,
    output_padding: Size,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """torch's gradients of x, weight and bias, those that are wanted."""
    stride, padding, dilation = [STRIDE] * 2, [PADDING] * 2, [1, 1]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, 1, wanted
    )
