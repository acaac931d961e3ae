"""Sinusoidal positions: sines and cosines of the place, from short to long waves, added to the token.

    PE(t, 2i) = sin(t / base^(2i / E)),   PE(t, 2i + 1) = cos(t / base^(2i / E))

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.

Shapes: B batch, T tokens, E features of a token, L places.
"""

import torch
from torch import Tensor

from attelbo.attention.positions.base import Position
from attelbo.attention.positions.tables import check_length, places, waves


class Sinusoidal(Position):
    """x + sines and cosines of its place.

    Args:
        dim: E, even.
        max_length: the places that are kept in a table; a longer sequence is an error.
        base: the longest wave is 2 pi times so many tokens.

    Raises:
        ValueError: an odd dim, no places; in use: a sequence longer than the table.
    """

    table: Tensor

    def __init__(self, dim: int, max_length: int, base: float = 10_000.0) -> None:
        super().__init__()
        check_length(max_length)
        if dim % 2:
            raise ValueError(f"dim must be even for pairs of sine and cosine, got {dim}")
        table = sines_and_cosines(torch.arange(max_length), dim, base)
        self.register_buffer("table", table.float(), persistent=False)

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        return x + places(self.table, first, x.shape[1])


def sines_and_cosines(positions: Tensor, dim: int, base: float) -> Tensor:
    """(L, dim) of positions (L,), sines at the even features and cosines at the odd ones, in float64."""
    angles = waves(positions, dim // 2, base)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)
