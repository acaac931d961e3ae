"""A score extended by further features of queries and keys, whose dot product is added unscaled.

Shapes: B batch, N heads, T queries, S keys, D features that another score compares, P further features.
"""

import torch
from torch import Tensor

from attelbo.attention.scores.base import DotProductScore, Score, is_dot_product


class Lengthened(DotProductScore):
    """A score of the first D features plus the dot product of the others.

    Args:
        score: of the first D.
        head_dim: D.
        whose: the beginning of the error message, what needs a dot product.

    Raises:
        ValueError: it is no dot product.
    """

    def __init__(self, score: Score, head_dim: int, whose: str) -> None:
        super().__init__()
        if not is_dot_product(score):
            raise ValueError(f"{whose} in a dot product, which {type(score).__name__} is not")
        self.score = score
        self.head_dim = head_dim
        self.scale = 1.0  # the others would be rounded by another

    def at_query(self, query: Tensor) -> Tensor:
        scored = self.score.scale * self.score.at_query(query[..., : self.head_dim])
        return torch.cat([scored, query[..., self.head_dim :]], -1)

    def at_key(self, key: Tensor) -> Tensor:
        return torch.cat([self.score.at_key(key[..., : self.head_dim]), key[..., self.head_dim :]], -1)
