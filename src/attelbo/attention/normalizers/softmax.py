"""Softmax: weights that sum to one.

Source: Bahdanau, Cho & Bengio 2015, eq. 6.
"""

import torch
from torch import Tensor

from attelbo.attention.normalizers.base import Normalizer


class Softmax(Normalizer):
    """exp(score) over its sum over the keys."""

    def normalize(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)
