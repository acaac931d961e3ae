"""Residual attention: each layer adds the accumulated scores of the layers before it to its own.

    scores_l = score_l(q_l, k_l) + scores_(l-1) = score_1(q_1, k_1) + ... + score_l(q_l, k_l)

A sum of dot products is the dot product of the concatenated features, so no layer has to keep its scores:

    scores_l = <[q_1, ..., q_l], [k_1, ..., k_l]>

and any kernel for dot products computes it, fused and in O(T + S) memory, from l D features. Deeper layers cost more,
and beyond what a GPU's fused kernels take (256 features) PyTorch chooses a slower one.

Source: He, Ravula, Kanagal & Ainslie 2020, "RealFormer: Transformer Likes Residual Attention", section 3.2 (they keep
the scores). Position biases and the soft cap are each layer's own: they are applied after the sum.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, l the layer.
"""

from typing import Unpack

import torch
from torch import Tensor

from attelbo.attention.multi_head import AttentionOptions
from attelbo.attention.scores import Lengthened, ScaledDot
from attelbo.attention.stacked import Handed, StackedAttention


class ResidualScoreAttention(StackedAttention):
    """Multi-head attention whose scores are added to those of the layers before it.

    Args:
        dim, heads, options: as in ``MultiHeadAttention``; the score must be a dot product.

    Raises:
        ValueError: a score that is no dot product; those of ``MultiHeadAttention``.
    """

    def __init__(self, dim: int, heads: int, **options: Unpack[AttentionOptions]) -> None:
        head_dim, _ = self.head_features(dim, heads, **options)
        score = options.get("score") or ScaledDot(head_dim)
        options["score"] = Lengthened(score, head_dim, "residual attention has sums of scores")
        super().__init__(dim, heads, **options)

    def continued(self, q: Tensor, k: Tensor, v: Tensor, handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
        if handed.before:
            queries, keys = handed.before  # (B, N, T, (l - 1) D), (B, M, S, (l - 1) D)
            q, k = torch.cat([q, queries], -1), torch.cat([k, keys], -1)
        handed.parts = (self.score.at_query(q), self.score.at_key(k))
        return q, k, v
