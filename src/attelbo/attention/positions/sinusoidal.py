"""Sinusoidal positions: sines and cosines of the place, from short to long waves, added to the token.

    PE(t, 2i) = sin(t / base^(2i / E)),   PE(t, 2i + 1) = cos(t / base^(2i / E))

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5; of images, half of the features for the row and
half for the column: Parmar et al. 2018, "Image Transformer", section 3.

Shapes: B batch, T tokens, E features of a token, L places, H x W places of an image.
"""

import torch
from torch import Tensor

from attelbo.attention.positions.base import Position
from attelbo.attention.positions.tables import angles, check_divides, places, rows_and_columns
from attelbo.checks import check_at_least, check_positive


class Sinusoidal(Position):
    """x + sines and cosines of its place.

    Args:
        dim: E, even.
        max_length: L; a longer sequence is an error.
        base: the longest wavelength is 2 pi base tokens.

    Raises:
        ValueError: an odd dim, no places; in use: a sequence longer than L.
    """

    table: Tensor

    def __init__(self, dim: int, max_length: int, base: float = 10_000.0) -> None:
        super().__init__()
        check_at_least(1, max_length=max_length)
        check_divides(2, "dim", dim, "pairs of sine and cosine")
        self.max_length = max_length
        table = sines_and_cosines(torch.arange(max_length), dim, base)
        self.register_buffer("table", table.float(), persistent=False)

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        return x + places(self.table, first, x.shape[1]).to(x.dtype)


class Sinusoidal2d(Position):
    """x + sines and cosines of its row and of its column in an image whose tokens come row by row.

    Args:
        dim: E, a multiple of 4.
        size: (H, W) of the grid of tokens; more than H W tokens are an error, and so is None.
        base: the longest wavelength is 2 pi base rows or columns.

    Raises:
        ValueError: another dim or size; in use: more than H W tokens.
    """

    table: Tensor

    def __init__(self, dim: int, size: tuple[int, int] | None, base: float = 10_000.0) -> None:
        super().__init__()
        check_divides(4, "dim", dim, "pairs of sine and cosine of row and column")
        halves = [sines_and_cosines(along, dim // 2, base) for along in rows_and_columns(size)]
        self.register_buffer("table", torch.cat(halves, -1).float(), persistent=False)

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        return x + places(self.table, first, x.shape[1]).to(x.dtype)


def sines_and_cosines(positions: Tensor, dim: int, base: float) -> Tensor:
    """(L, dim) of positions (L,), sines at the even features and cosines at the odd ones, in float64."""
    check_positive(base=base)
    angle = angles(positions, dim // 2, base)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
