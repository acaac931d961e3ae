"""Triangular matrices of entries in a row, such as the outputs of a network: the diagonal first, then one side of it.

Shapes: n matrices, D rows and columns of each.
"""

from typing import Literal

import torch
from torch import Tensor


def triangular_places(dim: int, side: Literal["below", "above"]) -> Tensor:
    """Where the entries of a triangular matrix stand in the flattened square one, (D (D + 1) / 2,)."""
    if side == "below":
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
    else:
        rows, columns = torch.triu_indices(dim, dim, offset=1)
    return torch.cat([torch.arange(dim) * (dim + 1), rows * dim + columns])


def triangular(diagonal: Tensor, others: Tensor, places: Tensor) -> Tensor:
    """The matrices (n, D, D) of a diagonal (n, D) and the entries on one side of it, at :func:`triangular_places`."""
    entries, dim = torch.cat([diagonal, others], dim=-1), diagonal.shape[-1]
    return entries.new_zeros(len(entries), dim * dim).index_copy(1, places, entries).unflatten(1, (dim, dim))
