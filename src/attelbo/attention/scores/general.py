"""Bilinear scores: the dot product of the key with a linear map of the query.

    score(q, k) = q^T W k

Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section
3.1 (general).

Shapes: B batch, N heads, T queries, D features of a head.
"""

from torch import Tensor, nn

from attelbo.attention.scores.base import DotProductScore
from attelbo.attention.scores.matrices import glorot, per_head
from attelbo.checks import check_positive


class General(DotProductScore):
    """scale * q^T W k, with a matrix for each head.

    Args:
        heads: N.
        head_dim: D.
        scale: 1 in the paper.

    Raises:
        ValueError: a scale that is not positive and finite.
    """

    def __init__(self, heads: int, head_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        check_positive(scale=scale)
        self.scale = scale
        self.weight = nn.Parameter(glorot(heads, head_dim, head_dim))

    def at_query(self, query: Tensor) -> Tensor:
        return per_head(query, self.weight)
