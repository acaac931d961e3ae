"""Learned positions: a vector for each place, added to the token that stands there.

Source: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", section 3.1; Vaswani et al. 2017, table 3
row E.

Shapes: B batch, T tokens, E features of a token, L places.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.positions.base import Position
from attelbo.attention.positions.tables import places
from attelbo.checks import check_at_least, check_not_negative


class Learned(Position):
    """x + a learned vector of its place.

    Args:
        dim: E.
        max_length: L; a longer sequence is an error.
        std: the standard deviation of the initial vectors.

    Raises:
        ValueError: no places; in use: a sequence longer than L.
    """

    def __init__(self, dim: int, max_length: int, std: float = 0.02) -> None:
        super().__init__()
        check_at_least(1, max_length=max_length)
        check_not_negative(std=std)
        self.max_length = max_length
        self.table = nn.Parameter(std * torch.randn(max_length, dim))

    def at_input(self, x: Tensor, first: int = 0) -> Tensor:
        return x + places(self.table, first, x.shape[1]).to(x.dtype)
