"""Matrices of scores, one for each head: their initialization and their product with queries and keys.

Shapes: B batch, N heads, T queries or keys, D features of a head, H features of the result.
"""

import torch
from torch import Tensor, nn


def glorot(heads: int, fan_in: int, fan_out: int) -> Tensor:
    """Matrices (N, in, out), Glorot-uniform, each head by itself."""
    weights = torch.empty(heads, fan_in, fan_out)
    for weight in weights:
        nn.init.xavier_uniform_(weight)
    return weights


def per_head(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, N, T, D) times each head's own matrix (N, D, H): (B, N, T, H).

    All rows of a batch in one product for each head: ``x @ weight`` would take one for each row, and sum B gradients of
    the matrix.
    """
    return torch.einsum("bntd,ndh->bnth", x, weight)
