"""Fully connected encoder and decoder.

Source: Burda et al. 2016, "Importance Weighted Autoencoders", section 5: two hidden layers of 200 tanh
units each way (the defaults).

Shapes: B batch, N rows of latents.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.layers import LinearActivation, hidden_layers, initialize, positive


class MLPEncoder(Encoder):
    """x of any shape, flattened -> the last hidden layer (B, hidden[-1]).

    Args:
        in_shape: the shape of one x.
        hidden: units of each hidden layer, from x on; empty for a linear model, h = x flattened.
        activation: after each hidden layer; ``glu`` has gates of as many further units.
        batch_norm: between a hidden layer and its activation (Ioffe & Szegedy 2015); evaluation uses running means.

    Raises:
        ValueError: a size below 1, no such activation.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (200, 200),
        activation: LinearActivation = "tanh",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        features = (math.prod(self.in_shape), *positive("hidden", hidden))
        self.out_shape = (features[-1],)
        self.layers = nn.Sequential(nn.Flatten(), *hidden_layers(features, activation, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MLPDecoder(Decoder):
    """z of any shape, flattened -> eta (N, *out_shape).

    Args:
        in_shape: the shape of one z.
        out_shape: the shape of one eta.
        hidden: units of each hidden layer, from z on; empty for a linear model.
        activation: after each hidden layer; ``glu`` has gates of as many further units.
        batch_norm: between a hidden layer and its activation (Ioffe & Szegedy 2015); evaluation uses running means.

    Raises:
        ValueError: a size below 1, no such activation.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (200, 200),
        activation: LinearActivation = "tanh",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = positive("out_shape", out_shape)
        features = (math.prod(self.in_shape), *positive("hidden", hidden))
        self.layers = nn.Sequential(nn.Flatten(), *hidden_layers(features, activation, batch_norm))
        self.output = initialize(nn.Linear(features[-1], math.prod(self.out_shape)))

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.layers(z)).unflatten(1, self.out_shape)
