"""Shared by positions in tables: a row for each place, and a clear error beyond the last one.

Shapes: L places, T tokens, E features of a token, H x W places of an image.
"""

import torch
from torch import Tensor


def places(table: Tensor, first: int, n_tokens: int) -> Tensor:
    """The rows of a table (L, E) for the tokens at ``first``, first + 1, ...: (T, E).

    Raises:
        ValueError: the table ends before.
    """
    if first + n_tokens > len(table):
        raise ValueError(f"there are {len(table)} positions, too few for a sequence of {first + n_tokens} tokens")
    return table[first : first + n_tokens]


def angles(positions: Tensor, n_waves: int, base: float) -> Tensor:
    """(L, n) of positions (L,): the position times base^(-i / n), i = 0 .. n - 1; in float64."""
    exponents = torch.arange(n_waves, dtype=torch.float64) / n_waves
    return positions.double().unsqueeze(-1) * base**-exponents


def rows_and_columns(size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Row and column, (H W,) each, of the places of an image in row-major order.

    Raises:
        ValueError: None, if the owner of the position has no image, or not two sizes of at least 1.
    """
    if size is None:
        raise ValueError(
            "rows and columns are those of an image, and there is none; sinusoidal and rope are for tokens in a row"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (height, width) of the grid of tokens, got {tuple(size)}")
    row, column = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return row.flatten(), column.flatten()


def check_divides(divisor: int, name: str, value: int, why: str) -> None:
    """Features come in groups.

    Raises:
        ValueError: the divisor does not divide the value.
    """
    if value < 1 or value % divisor:
        raise ValueError(f"{name} must be a multiple of {divisor} for {why}, got {value}")
