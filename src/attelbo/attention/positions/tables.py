"""What positions that are looked up share: a row for each place, and a clear word where there are no more.

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


def waves(positions: Tensor, n_frequencies: int, base: float) -> Tensor:
    """Angles (L, n) of positions (L,): the position times base^(-i / n), i = 0 .. n - 1; in float64."""
    exponents = torch.arange(n_frequencies, dtype=torch.float64) / n_frequencies
    return positions.double().unsqueeze(-1) * base**-exponents


def check_length(max_length: int) -> None:
    """Raises:
    ValueError: no places at all.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
