"""Negative squared distances between queries and keys: nearer keys score higher.

    score(q, k) = -scale |q - k|^2 = scale <[2 q, -|q|^2, 1], [k, 1, -|k|^2]>

Source: Kim, Papamakarios & Mnih 2021, "The Lipschitz Constant of Self-Attention", eq. 14, with 1 / sqrt(D) as scale.
Ours differs: queries and keys have separate projections, so attention is not Lipschitz.

Shapes: B batch, N heads, T queries, D features of a head.
"""

import torch
from torch import Tensor

from attelbo.attention.scores.base import DotProductScore
from attelbo.checks import check_positive


class Distance(DotProductScore):
    """Minus the squared distance, times a scale: a dot product of D + 2 features.

    Args:
        head_dim: D.
        scale: 1 / sqrt(D) if None.
    """

    def __init__(self, head_dim: int, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None:
            check_positive(scale=scale)
        self.scale = head_dim**-0.5 if scale is None else scale

    def at_query(self, query: Tensor) -> Tensor:
        square = query.square().sum(-1, keepdim=True)
        return torch.cat([2 * query, -square, torch.ones_like(square)], -1)

    def at_key(self, key: Tensor) -> Tensor:
        square = key.square().sum(-1, keepdim=True)
        return torch.cat([key, torch.ones_like(square), -square], -1)
