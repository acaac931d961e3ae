"""The affine coupling layer (Dinh, Sohl-Dickstein & Bengio 2017, "Density Estimation Using Real NVP", eq. 4-8).

Shapes: n samples, B batch, D dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.flows.base import Flow, bounded, check_hidden


class AffineCoupling(Flow):
    """One half of z stays, and determines how the other half is scaled and shifted: y = z exp(s) + t. The same for all
    rows.

    Starts as the identity. The paper bounds s by tanh with a learned factor, ours smoothly to (-3, 3).

    Args:
        dim: D; the first half has D // 2 dimensions.
        hidden: units of each hidden layer, ELU after each.
        swap: the second half stays and the first one moves.

    Raises:
        ValueError: fewer than 2 dimensions, no hidden layer, or one without a unit.
    """

    def __init__(self, dim: int, hidden: Sequence[int], swap: bool = False) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"a coupling takes latents of at least 2 dimensions, got {dim}")
        check_hidden(hidden)
        self.sizes = [dim // 2, dim - dim // 2]
        self.swap = swap
        staying, moving = reversed(self.sizes) if swap else self.sizes
        layers: list[nn.Module] = []
        for n_inputs, n_units in zip((staying, *hidden), hidden, strict=False):
            layers += [nn.Linear(n_inputs, n_units), nn.ELU()]
        output = nn.Linear(hidden[-1], 2 * moving)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.network = nn.Sequential(*layers, output)

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        staying, moving = self._halves(z)
        shift, log_scale = self._affine(staying)
        return self._whole(staying, torch.addcmul(shift, moving, log_scale.exp())), log_scale.sum(-1)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        staying, moving = self._halves(z)
        shift, log_scale = self._affine(staying)
        return self._whole(staying, (moving - shift) * (-log_scale).exp()), -log_scale.sum(-1)

    def _affine(self, staying: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = full_precision(self.network(staying)).chunk(2, dim=-1)
        return shift, bounded(log_scale)

    def _halves(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z.split(self.sizes, dim=-1)
        return (second, first) if self.swap else (first, second)

    def _whole(self, staying: Tensor, moving: Tensor) -> Tensor:
        return torch.cat([moving, staying] if self.swap else [staying, moving], dim=-1)
