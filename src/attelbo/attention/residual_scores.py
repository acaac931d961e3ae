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

import torch
from torch import Tensor

from attelbo.attention.kernels import KernelName
from attelbo.attention.layer import check_heads
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Normalizer
from attelbo.attention.positions import Position
from attelbo.attention.scores import Lengthened, ScaledDot, Score
from attelbo.attention.stacked import Handed, StackedAttention


class ResidualScoreAttention(StackedAttention):
    """Multi-head attention whose scores are added to those of the layers before it.

    Args:
        dim, heads, kv_heads, memory_dim, score, normalizer, position, mask, soft_cap, dropout, bias, kernel: as in
            ``MultiHeadAttention``; the score must be a dot product.

    Raises:
        ValueError: a score that is no dot product; those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        memory_dim: int | None = None,
        score: Score | None = None,
        normalizer: Normalizer | None = None,
        position: Position | None = None,
        mask: Mask | None = None,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: KernelName = "auto",
    ) -> None:
        check_heads(dim, heads)
        super().__init__(
            dim,
            heads,
            kv_heads=kv_heads,
            memory_dim=memory_dim,
            score=Lengthened(score or ScaledDot(dim // heads), dim // heads, "residual attention has sums of scores"),
            normalizer=normalizer,
            position=position,
            mask=mask,
            soft_cap=soft_cap,
            dropout=dropout,
            bias=bias,
            kernel=kernel,
        )

    def continued(self, q: Tensor, k: Tensor, v: Tensor, handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
        if handed.before:
            queries, keys = handed.before  # (B, N, T, (l - 1) D), (B, M, S, (l - 1) D)
            q, k = torch.cat([q, queries], -1), torch.cat([k, keys], -1)
        handed.parts = (self.score.at_query(q), self.score.at_key(k))
        return q, k, v
