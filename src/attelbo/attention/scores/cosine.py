"""Cosines of the angles between queries and keys (QK-norm): no score exceeds the scale, whatever their norms.

    score(q, k) = g <q / |q|, k / |k|>

Source: Henry et al. 2020, "Query-Key Normalization for Transformers", eq. 2 and 3.

Shapes: B batch, N heads, T queries, D features of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.scores.base import DotProductScore
from attelbo.checks import check_positive


class Cosine(DotProductScore):
    """g times the cosine.

    Args:
        scale: g, or its initial value if it is learned. The paper takes log2(L^2 - L) for sentences of L tokens: 10 for
            L = 32.
        learned: whether g, one number for all heads, is learned.

    Raises:
        ValueError: a scale that is not positive and finite.
    """

    def __init__(self, scale: float = 10.0, learned: bool = True) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.scale = 1.0 if learned else scale
        self.gain = nn.Parameter(torch.tensor(float(scale))) if learned else None

    def at_query(self, query: Tensor) -> Tensor:
        query = F.normalize(query, dim=-1)
        return query if self.gain is None else self.gain.to(query.dtype) * query

    def at_key(self, key: Tensor) -> Tensor:
        return F.normalize(key, dim=-1)
