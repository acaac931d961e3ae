"""What a score is: a number for each query and key, before normalization.

Shapes: B batch, N heads, T queries, S keys, D features of a head, D', D'' what a score makes of them.
"""

from abc import ABC, abstractmethod
from typing import TypeGuard

from torch import Tensor, nn


class Score(nn.Module, ABC):
    """score(q, k) for every pair: what it makes of the queries compared with what it makes of the keys.

    A subclass that names ``heads`` (N), ``head_dim`` (D) or ``max_length`` in its constructor is given them by whoever
    owns it.
    """

    numbers_per_pair: int = 1
    """What is kept for a query and a key until there is their score."""

    def at_query(self, query: Tensor) -> Tensor:
        """query (B, N, T, D) -> (B, N, T, D')."""
        return query

    def at_key(self, key: Tensor) -> Tensor:
        """key (B, N, S, D) -> (B, N, S, D''): what can be kept of keys that are asked again and again."""
        return key

    @abstractmethod
    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """query (B, N, T, D'), key (B, N, S, D'') -> (B, N, T, S)."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """query (B, N, T, D), key (B, N, S, D) -> (B, N, T, S)."""
        return self.compared(self.at_query(query), self.at_key(key))

    def compared(self, query: Tensor, key: Tensor) -> Tensor:
        """What :meth:`compare` gives, which must be a score for each pair.

        Raises:
            ValueError: it is not.
        """
        scores, wanted = self.compare(query, key), (*query.shape[:3], key.shape[2])
        if scores.shape != wanted:
            raise ValueError(
                f"score: {type(self).__name__}.compare must give (B, N, T, S), a number for each query and key, here "
                f"{tuple(wanted)}, got {tuple(scores.shape)}"
            )
        return scores


class DotProductScore(Score):
    """scale * <f(q), g(k)>, f = ``at_query`` and g = ``at_key``: every kernel can compute it."""

    scale: float
    """What the dot product is multiplied with; what is learned belongs to f."""

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        return (self.scale * query) @ key.transpose(-2, -1)


def is_dot_product(score: Score) -> TypeGuard[DotProductScore]:
    """Whether it is what a fused kernel computes; one that compares in a way of its own is not."""
    return isinstance(score, DotProductScore) and type(score).compare is DotProductScore.compare
