"""What a normalizer is: it turns the scores of a query with all keys into weights.

Shapes: B batch, N heads, T queries, S keys.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attelbo.attention.precision import full_precision


class Normalizer(ABC):
    """Scores (B, N, T, S) -> weights, the same shape, not below zero; float16 and bfloat16 are computed in float32.

    One with parameters is also an ``nn.Module``, ``class Mine(Normalizer, nn.Module)``, so that its layer registers it.
    """

    @abstractmethod
    def normalize(self, scores: Tensor) -> Tensor:
        """The weights where nothing is masked."""

    def normalize_allowed(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """The weights of the keys that are allowed; those of the others are arbitrary."""
        # Not -inf: a row of it would be NaN, also in the gradient.
        return self.normalize(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min))

    def __call__(self, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The weights; those of keys that are not ``allowed`` (broadcasts to the scores, bool) are zero, and get no
        gradient. A query with nothing to attend to has zero weights only."""
        precise = full_precision(scores)
        if allowed is None:
            return self.normalize(precise).to(scores.dtype)
        return self.normalize_allowed(precise, allowed).masked_fill(~allowed, 0.0).to(scores.dtype)
