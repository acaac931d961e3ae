"""What a score is: a number for each query and key, before normalization.

Shapes: B batch, N heads, T queries, S keys, D features of a head.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Score(nn.Module, ABC):
    """score(q, k) for every pair.

    A subclass that names ``heads`` or ``head_dim`` in its constructor is given N or D by whoever owns it.
    """

    is_dot_product: bool
    """Whether it is a dot product in other coordinates (see :meth:`as_dot_product`): all kernels can compute it."""
    scale: float
    """What the dot product is multiplied with, where it is one."""

    @abstractmethod
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """query (B, N, T, D), key (B, N, S, D) -> (B, N, T, S)."""


class DotProductScore(Score):
    """scale * <f(q), g(k)>, where a subclass says what f and g are."""

    is_dot_product = True

    def as_dot_product(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """(f(q), g(k)), of the same shapes."""
        return query, key

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        query, key = self.as_dot_product(query, key)
        return (self.scale * query) @ key.transpose(-2, -1)
