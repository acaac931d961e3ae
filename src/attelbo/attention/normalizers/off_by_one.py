"""Softmax off by one: a head may also attend to nothing.

    w_s = exp(z_s) / (1 + sum_j exp(z_j))

Source: Miller 2023, "Attention Is Off By One" (essay), the equation of softmax_1.

Shapes: S keys.
"""

import torch
from torch import Tensor

from attelbo.attention.normalizers.base import Normalizer


class SoftmaxOffByOne(Normalizer):
    """Softmax with one additional score of 0, whose weight is discarded: the weights sum to less than one."""

    def normalize(self, scores: Tensor) -> Tensor:
        # softmax Z / (1 + Z), Z the sum of exponentials.
        return torch.softmax(scores, dim=-1) * torch.sigmoid(torch.logsumexp(scores, dim=-1, keepdim=True))
