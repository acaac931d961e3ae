"""A network whose i-th output sees only the inputs before the i-th (Germain et al. 2015, "MADE: Masked Autoencoder for
Distribution Estimation", eq. 8-12).

Shapes: ... any, D dimensions, H units of the first hidden layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.latent.flows.base import check_hidden


class MaskedNetwork(nn.Module):
    """z (..., D) -> two numbers for each dimension, each (..., D), from the dimensions before it.

    The degrees of the hidden units are spread evenly rather than drawn, and begin at 0: a unit of degree m sees the
    first m dimensions. Those of degree 0, which MADE does not have, see the context only, so that it moves the first
    dimension too. Starts with outputs of 0, whatever the input.

    Args:
        dim: D.
        hidden: units of each hidden layer, ELU after each.
        reverse: the order of the dimensions is D - 1 .. 0.

    Raises:
        ValueError: no hidden layer, or one without a unit.
    """

    position: Tensor
    """The place of each dimension in the order, (D,)."""

    def __init__(self, dim: int, hidden: Sequence[int], reverse: bool = False) -> None:
        super().__init__()
        check_hidden(hidden)
        position = torch.arange(dim)
        position = position.flip(0) if reverse else position
        self.register_buffer("position", position, persistent=False)
        layers: list[_MaskedLinear] = []
        degrees = position + 1  # an input of position i is seen by units of degree i + 1 and above
        for n_units in hidden:
            own = torch.arange(n_units) * dim // n_units  # 0 .. D - 1
            layers.append(_MaskedLinear(degrees <= own.unsqueeze(1)))
            degrees = own
        self.hidden = nn.ModuleList(layers)
        self.output = _MaskedLinear((degrees <= position.unsqueeze(1)).repeat(2, 1))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``context`` is added to the first hidden layer before its ELU, (..., H)."""
        h = z
        for i, layer in enumerate(self.hidden):
            h = layer(h)
            h = F.elu(h if context is None or i > 0 else h + context)
        first, second = self.output(h).chunk(2, dim=-1)
        return first, second


class _MaskedLinear(nn.Linear):
    """A linear layer of which only the weights in ``mask`` (outputs, inputs) exist."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        n_outputs, n_inputs = mask.shape
        super().__init__(n_inputs, n_outputs)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)
