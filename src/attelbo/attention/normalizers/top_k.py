"""Softmax over the keys with the highest scores: all others get no weight.

Source: Zhao et al. 2019, "Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection", eqs. 4-6.

Shapes: S keys.
"""

import torch
from torch import Tensor

from attelbo.attention.normalizers.base import Normalizer
from attelbo.checks import check_at_least


class TopK(Normalizer):
    """Softmax over the k largest scores, and those that are tied with the last of them.

    Args:
        k: the number of keys; all if there are no more than k.

    Raises:
        ValueError: ``k`` below 1.
    """

    def __init__(self, k: int = 8) -> None:
        check_at_least(1, k=k)
        self.k = k

    def normalize(self, scores: Tensor) -> Tensor:
        if scores.shape[-1] <= self.k:
            return torch.softmax(scores, dim=-1)
        last = scores.detach().topk(self.k, -1).values[..., -1:]
        return torch.softmax(scores.masked_fill(scores < last, float("-inf")), dim=-1)
