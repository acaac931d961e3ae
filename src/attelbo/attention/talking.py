"""Talking-heads attention: heads mix their scores before the normalizer, and their weights after it.

    scores'_n = sum_m P_nm scores_m,   weights_n = sum_m W_nm normalizer(scores'_m)

Source: Shazeer, Lan, Cheng, Ding & Hou 2020, "Talking-Heads Attention", section 4, with as many heads of queries, of
weights and of values. Ours begins as multi-head attention, with the identity for both matrices; biases of positions and
the soft cap come before the first.

Shapes: N heads, T queries, S keys.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.precision import full_precision


class TalkingHeadsAttention(MultiHeadAttention):
    """Multi-head attention whose heads are mixed before and after the normalizer, by a learned matrix each.

    A fused kernel never shows the scores of one head to another: only eager and chunked, which hold them, can compute
    it. Weights may be below zero, and need not sum to one.

    Args:
        dim, heads, options: as in ``MultiHeadAttention``.

    Raises:
        ValueError: those of ``MultiHeadAttention``.
    """

    def __init__(self, dim: int, heads: int, **options: Unpack[AttentionOptions]) -> None:
        self.head_features(dim, heads, **options)  # checked before it makes the matrices
        options["normalizer"] = TalkingHeads(options.get("normalizer") or Softmax(), heads)
        super().__init__(dim, heads, **options)


class TalkingHeads(Normalizer, nn.Module):
    """A normalizer between two mixtures of heads.

    Args:
        normalizer: from mixed scores to weights.
        heads: N.
    """

    def __init__(self, normalizer: Normalizer, heads: int) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.of_scores = nn.Parameter(torch.eye(heads))
        """P, (N, N)."""
        self.of_weights = nn.Parameter(torch.eye(heads))
        """W, (N, N)."""

    def normalize(self, scores: Tensor) -> Tensor:
        return mixed(self.of_weights, self.normalizer.normalize(mixed(self.of_scores, scores)))

    def normalize_allowed(self, scores: Tensor, allowed: Tensor) -> Tensor:
        # A key is masked for all heads, or for none.
        return mixed(self.of_weights, self.normalizer.normalize_allowed(mixed(self.of_scores, scores), allowed))


def mixed(matrix: Tensor, of_heads: Tensor) -> Tensor:
    """matrix (N, N), of_heads (..., N, T, S) -> the same shape: each head is a sum over all."""
    together = full_precision(matrix) @ of_heads.flatten(-2)
    return full_precision(together).unflatten(-1, of_heads.shape[-2:])
