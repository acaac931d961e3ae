"""What a normalizer is: it turns the scores of a query with all keys into weights.

Shapes: B batch, N heads, T queries, S keys.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Normalizer(ABC):
    """Scores (B, N, T, S) -> weights, the same shape, not below zero."""

    @abstractmethod
    def normalize(self, scores: Tensor) -> Tensor:
        """The weights where nothing is masked."""

    def __call__(self, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The weights; those of keys that are not ``allowed`` (broadcasts to the scores, bool) are zero, and take part
        in no gradient. A query with nothing to attend to has no weight anywhere."""
        if allowed is None:
            return self.normalize(scores)
        # Not -inf: a row of it would be NaN, also in the gradient.
        lowest = torch.finfo(scores.dtype).min
        return self.normalize(scores.masked_fill(~allowed, lowest)).masked_fill(~allowed, 0.0)
