"""What a score is: a number for each query and key, before normalization.

Shapes: B batch, N heads, T queries, S keys, D features of a head, D', D'' features after the score's own maps.
"""

from abc import ABC, abstractmethod
from typing import TypeGuard

from torch import Tensor, nn


class Score(nn.Module, ABC):
    """score(q, k) for every pair: mapped queries compared with mapped keys.

    A subclass that names ``heads`` (N), ``head_dim`` (D) or ``max_length`` in its constructor is given them by the
    module that owns it.
    """

    numbers_per_pair: int = 1
    """Intermediate numbers that are held for each pair while its score is computed."""

    def at_query(self, query: Tensor) -> Tensor:
        """query (B, N, T, D) -> (B, N, T, D')."""
        return query

    def at_key(self, key: Tensor) -> Tensor:
        """key (B, N, S, D) -> (B, N, S, D''): can be kept for keys that are used repeatedly."""
        return key

    @abstractmethod
    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """query (B, N, T, D'), key (B, N, S, D'') -> (B, N, T, S)."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """query (B, N, T, D), key (B, N, S, D) -> (B, N, T, S)."""
        return self.compared(self.at_query(query), self.at_key(key))

    def compared(self, query: Tensor, key: Tensor) -> Tensor:
        """:meth:`compare`, checked to give one score for each pair.

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
    """The constant factor of the dot product; a learned factor belongs to f."""

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        return (self.scale * query) @ key.transpose(-2, -1)


def is_dot_product(score: Score) -> TypeGuard[DotProductScore]:
    """Whether a fused kernel can compute it: not if a subclass overrides ``compare``."""
    return isinstance(score, DotProductScore) and type(score).compare is DotProductScore.compare
