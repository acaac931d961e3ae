"""An encoder whose slots compete for the pixels of an image, and a decoder that paints each slot by itself.

    x -- convolutions, places --> elements -- slot attention --> slots (K, E)
    each slot z_k -- broadcast, places, convolutions --> eta_k and a mask logit for each pixel
    eta = sum_k softmax_k(logit) eta_k

Source: Locatello et al. 2020, "Object-Centric Learning with Slot Attention", arXiv:2006.15055, section 4.1 and appendix
E.3; the broadcast: Watters et al. 2019, "Spatial Broadcast Decoder", arXiv:1901.07017. Ours differs: the slots are
latents with a posterior and a prior; they are initialized to learned vectors (Jia, Liu & Huang 2023, "Improving
Object-centric Learning with Query Optimization", arXiv:2210.08990), so that q(z|x) is a function of x; the decoder is
that of 3 x 3 convolutions of the other models. The mixture is over parameters of the likelihood: the means of a normal,
as in the paper, or the logits of a Bernoulli.

Slots drawn at random, as in the paper, are noise at first: with some seeds the model learned to ignore it before it had
learned to divide the pixels, and all slots stayed identical from then on.

Shapes: B batch, N rows of latents, S elements, K slots, E features of a slot, D dimensions of a z_k, (P C, H, W) the
parameters of a likelihood.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention.sets import SlotAttention
from attelbo.checks import check_at_least
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.conv import ConvDecoder
from attelbo.networks.layers import (
    Activation,
    Size,
    activation_layer,
    channels_last,
    halvings,
    image_shape,
    initialize,
    levels,
    positive,
    relu_layers,
)

_KERNEL = 5


class Places(nn.Module):
    """Adds to each pixel of a map (N, C, H, W) a linear function of its distances to the four edges of the image."""

    distances: Tensor

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        down, across = (torch.linspace(0, 1, n) for n in size)
        grid = torch.stack(torch.meshgrid(down, across, indexing="ij"))
        self.register_buffer("distances", torch.cat([grid, 1 - grid]).flatten(1).mT, persistent=False)  # (H W, 4)
        self.size = size
        self.linear = nn.Linear(4, channels)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.linear(self.distances).mT.unflatten(1, self.size)


class SlotEncoder(Encoder):
    """x (B, C, H, W) -> K slots as a map h (B, E, K, 1), in no order.

    Args:
        in_shape: (C, H, W).
        channels: of each 5 x 5 convolution.
        halvings: how many of them, the first ones, halve height and width.
        n_slots: K.
        dim: E.
        iterations: how often slots are updated.
        activation: after each convolution.

    Raises:
        ValueError: not an image, a size below 1, more halvings than convolutions, or no such activation.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 32, 32),
        halvings: int = 1,
        n_slots: int = 4,
        dim: int = 64,
        iterations: int = 3,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        channels = levels(channels)
        check_at_least(1, dim=dim)
        if not 0 <= halvings <= len(channels):
            raise ValueError(f"halvings must be in 0..{len(channels)}, the number of convolutions, got {halvings}")
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip((self.in_shape[0], *channels[:-1]), channels, strict=True)):
            stride = 2 if i < halvings else 1
            convolution = nn.Conv2d(c_in, c_out, _KERNEL, stride=stride, padding=_KERNEL // 2)
            layers += [initialize(convolution, activation), activation_layer(activation, overwrite=True)]
        self.layers = nn.Sequential(*layers)
        self.places = Places(channels[-1], _halved(self.in_shape[1:], halvings))
        self.norm = nn.LayerNorm(channels[-1])
        self.features = relu_layers((channels[-1], dim, dim))
        self.slots = SlotAttention(dim, n_slots=n_slots, iterations=iterations, learned=True)
        self.out_shape = (dim, n_slots, 1)
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.slots(self.elements(x)).mT.unsqueeze(-1)

    def elements(self, x: Tensor) -> Tensor:
        """The elements that slots compete for, (B, S, E)."""
        return self.features(self.norm(self.places(self.layers(x)).flatten(2).mT))


class SlotDecoder(Decoder):
    """z (N, D, K, 1), a slot at each place, -> eta (N, *out_shape), whatever the order of the slots.

    Args:
        in_shape: (D, K, 1), or any other map; (D,): one slot.
        out_shape: (P C, H, W).
        channels: of each level of convolutions, from the broadcast on; each level doubles height and width.
        activation: after each layer but the last.

    Raises:
        ValueError: not an image, a size below 1, or no such activation.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 32),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        self.dim, self.n_slots = self.in_shape[0], math.prod(self.in_shape[1:])
        n_maps, *size = self.out_shape
        channels = levels(channels)
        smallest = _halved((size[0], size[1]), len(channels))
        # Places are added to more features than a z may have, among which they would have to share.
        self.features = initialize(nn.Linear(self.dim, channels[0]))
        self.places = Places(channels[0], smallest)
        self.painter = ConvDecoder(
            (channels[0], *smallest), (n_maps + 1, *size), channels=channels, activation=activation
        )

    @property
    def output(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.painter.output

    def forward(self, z: Tensor) -> Tensor:
        painted, shares = self.layers(z)
        return (painted * shares.unsqueeze(2)).sum(1)

    def layers(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What each slot paints, (N, K, P C, H, W), and its share of each pixel, (N, K, H, W), which sum to one."""
        slots = z.flatten(2).mT if z.dim() > 2 else z.unsqueeze(1)  # (N, K, D)
        broadcast = self.places(self.features(slots.flatten(0, 1))[:, :, None, None])
        painted = self.painter(broadcast).unflatten(0, (len(z), self.n_slots))
        return painted[:, :, :-1], F.softmax(painted[:, :, -1], 1)


def _halved(size: Size, times: int) -> Size:
    return halvings(size, times)[-1]
