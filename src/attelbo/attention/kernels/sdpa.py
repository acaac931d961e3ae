"""PyTorch's fused kernel: softmax of dot products, O(T + S) memory, no second derivative.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, V of a value.
"""

import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.kernels.base import Kernel, Mechanism
from attelbo.attention.kernels.eager import dense_bias
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Softmax
from attelbo.attention.scores.base import DotProductScore


class Sdpa(Kernel):
    """``scaled_dot_product_attention``.

    On a CPU it leaves the fused path, and takes O(T S) memory, for ``dropout`` > 0, a bias that is learned, V != D,
    and inputs whose last dimension is not contiguous.
    """

    name = "sdpa"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        if not isinstance(mechanism.score, DotProductScore):
            return f"{type(mechanism.score).__name__} is no dot product"
        if not isinstance(mechanism.normalizer, Softmax):
            return f"its normalizer is softmax, not {type(mechanism.normalizer).__name__}"
        if mechanism.soft_cap is not None:
            return "it has no soft cap"
        return None

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        *,
        mask: Mask | None = None,
        offset: int | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        score, n_heads, n_queries, n_keys = mechanism.score, query.shape[1], query.shape[2], key.shape[2]
        assert isinstance(score, DotProductScore)
        offset = n_keys - n_queries if offset is None else offset
        query, key = score.at_query(query), score.at_key(key)
        additive, causal = None, False
        if mask is not None and not mask.allows_all(n_queries, n_keys, offset):
            causal = offset == 0 and mask.is_causal(n_queries, n_keys) and not mechanism.position.has_bias
            if not causal:
                additive = mask.dense(n_queries, n_keys, offset=offset, device=query.device)
        if mechanism.position.has_bias:
            bias = dense_bias(mechanism, n_heads, n_queries, n_keys, offset, query.device).to(query.dtype)
            additive = bias if additive is None else bias.masked_fill(~additive, float("-inf"))
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=additive,
            dropout_p=dropout,
            is_causal=causal,
            scale=score.scale,
            enable_gqa=key.shape[1] != n_heads,
        )
