"""Several independent latents together, such as a normal one and categorical ones.

Dupont 2018, "Learning Disentangled Joint Continuous and Discrete Representations", sec. 3.

Shapes: n samples, B batch, E_i the event shape of part i, D the numbers in all of them.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from attelbo.latent.distributions.base import Distribution


class Joint(Distribution):
    """q(z) = prod_i q_i(z_i), with the parts flattened and concatenated: z is (n, B, D).

    Args:
        parts: the q_i.
        shapes: E_i.
    """

    reparametrized = False  # choices among the parts are not

    def __init__(self, parts: Sequence[Distribution], shapes: Sequence[tuple[int, ...]]) -> None:
        self.parts = tuple(parts)
        self.shapes = tuple(shapes)

    @property
    def mean(self) -> Tensor:
        return torch.cat([part.mean.flatten(1) for part in self.parts], dim=-1)

    def rsample(self, n: int) -> Tensor:
        return torch.cat([part.rsample(n).flatten(2) for part in self.parts], dim=-1)

    def log_prob(self, z: Tensor) -> Tensor:
        values = split_parts(z, self.shapes)
        return torch.stack([part.log_prob(value) for part, value in zip(self.parts, values, strict=True)]).sum(0)

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        values, log_probs = zip(*(part.rsample_with_log_prob(n) for part in self.parts), strict=True)
        return torch.cat([value.flatten(2) for value in values], dim=-1), torch.stack(log_probs).sum(0)

    def stop_gradient(self) -> Self:
        return type(self)([part.stop_gradient() for part in self.parts], self.shapes)


def split_parts(z: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """z (n, B, D) as its parts, (n, B, *E_i)."""
    pieces = z.split([math.prod(shape) for shape in shapes], dim=-1)
    return [piece.unflatten(-1, shape) for piece, shape in zip(pieces, shapes, strict=True)]
