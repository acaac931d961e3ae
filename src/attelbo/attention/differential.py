"""Differential attention: the difference of two softmax maps, in which noise that both share cancels.

    head = (softmax(q1 k1^T / sqrt(d)) - lambda softmax(q2 k2^T / sqrt(d))) v
    lambda = exp(lambda_q1 . lambda_k1) - exp(lambda_q2 . lambda_k2) + lambda_init
    output = (1 - lambda_init) [norm(head_1), ..., norm(head_N)] W_o

Source: Ye et al. 2024, "Differential Transformer", eqs. 1-3; lambda_init = 0.8 - 0.6 exp(-0.3 (l - 1)) of layer l.

Shapes: B batch, T queries, S keys, E features of a token, N heads, M heads of keys and values, D = E / N, d = D / 2.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.layer import HeadFeatures, join_heads
from attelbo.attention.masks import Mask
from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.attention.precision import rms_normed
from attelbo.checks import check_at_least


class DifferentialAttention(MultiHeadAttention):
    """Multi-head attention whose heads have two queries and two keys of D / 2 features each, and one value of D.

    It has the parameters of ``MultiHeadAttention`` with the same arguments, and a few more for lambda and the norm; the
    paper takes half as many heads. The kernel is called once for each of the two maps.

    Args:
        depth: l, of the layer in a stack, from 1 on.
        dim, heads, options: as in ``MultiHeadAttention``, for each of the two maps; D must be even.

    Raises:
        ValueError: an odd number of features of a head, a depth below 1; those of ``MultiHeadAttention``.
    """

    n_maps = 2

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        depth: int = 1,
        **options: Unpack[AttentionOptions],
    ) -> None:
        check_at_least(1, depth=depth)
        super().__init__(dim, heads, **options)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * (depth - 1))
        half = self.output.in_features // heads // 2
        self.lambda_query, self.lambda_key = (nn.Parameter(0.1 * torch.randn(2, half)) for _ in range(2))
        self.norm = nn.RMSNorm(2 * half, eps=1e-5)

    @staticmethod
    def head_features(dim: int, heads: int, **options: Any) -> HeadFeatures:
        head_dim, _ = MultiHeadAttention.head_features(dim, heads, **options)
        if head_dim % 2:
            raise ValueError(f"two maps need an even number of features of a head, got {head_dim}")
        return HeadFeatures(head_dim // 2, head_dim // 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        (q_1, q_2), (k_1, k_2) = q.chunk(2, 1), k.chunk(2, 1)
        return super().attend(q_1, k_1, v, mask) - self.strength() * super().attend(q_2, k_2, v, mask)

    def attention_weights(self, q: Tensor, k: Tensor, mask: Mask | None) -> Tensor:
        """The difference of the two maps: some are below zero, and a row sums to 1 - lambda."""
        (q_1, q_2), (k_1, k_2) = q.chunk(2, 1), k.chunk(2, 1)
        first, second = super().attention_weights(q_1, k_1, mask), super().attention_weights(q_2, k_2, mask)
        return first - self.strength() * second

    def strength(self) -> Tensor:
        """lambda, a scalar."""
        added, taken = (self.lambda_query * self.lambda_key).sum(-1).exp()
        return added - taken + self.lambda_init

    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        return self.output(join_heads((1 - self.lambda_init) * rms_normed(heads, self.norm)))
