"""Sigmoid attention: each key is weighted independently of the others.

    w_s = sigmoid(z_s + b)

Source: Ramapuram et al. 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention", eq. 3 and section 4,
where b = -log(n) for sequences of n tokens. Ours differs: n is the number of keys that the query may attend to, so that
neither padding, nor keys that come later, nor decoding with a cache changes a weight.

Shapes: B batch, N heads, T queries, S keys.
"""

import math

import torch
from torch import Tensor

from attelbo.attention.normalizers.base import Normalizer


class Sigmoid(Normalizer):
    """sigmoid(score + bias).

    Args:
        bias: b; minus the logarithm of the number of keys that the query may attend to if None.

    Raises:
        ValueError: a bias that is not finite.
    """

    def __init__(self, bias: float | None = None) -> None:
        if bias is not None and not math.isfinite(bias):
            raise ValueError(f"bias must be finite, got {bias}")
        self.bias = bias

    def normalize(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores + (-math.log(scores.shape[-1]) if self.bias is None else self.bias))

    def normalize_allowed(self, scores: Tensor, allowed: Tensor) -> Tensor:
        # Otherwise a masked score, such as NaN, would reach the gradient through the sigmoid.
        scores = scores.masked_fill(~allowed, 0.0)
        if self.bias is not None:
            return torch.sigmoid(scores + self.bias)
        return torch.sigmoid(scores - allowed.sum(-1, keepdim=True).clamp(min=1).to(scores.dtype).log())
