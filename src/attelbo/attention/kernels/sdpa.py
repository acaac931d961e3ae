"""PyTorch's fused kernel: softmax of dot products, O(T + S) memory, no second derivative.

Softmax off by one is computed as a softmax with one additional key, whose score and value are 0. A learned sink adds
one feature, which is 1 in this key only and, in each query, the score that its head has learned.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, V of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.kernels.base import Call, Kernel, Mechanism, dense_bias
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import LearnedSink, Softmax, SoftmaxOffByOne
from attelbo.attention.scores import DotProductScore, is_dot_product


class Sdpa(Kernel):
    """``scaled_dot_product_attention``.

    A mask other than causal is rendered dense, (T, S). On a CPU it leaves the fused path, and takes O(T S) memory for
    each head, where weights are dropped or a bias is learned; :meth:`leaves_fused_path` tells. Two more cases that
    would leave it are avoided: where V != D the shorter ones are padded with zeros, and inputs whose last dimension is
    not contiguous are copied.
    """

    name = "sdpa"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        if not is_dot_product(mechanism.score):
            return f"{type(mechanism.score).__name__} is no dot product"
        if type(mechanism.normalizer) not in (Softmax, SoftmaxOffByOne, LearnedSink):  # a subclass may do anything
            return f"its normalizer is softmax, not {type(mechanism.normalizer).__name__}"
        if mechanism.soft_cap is not None:
            return "it has no soft cap"
        if mechanism.position.reads_scores:
            return f"it shows no scores, which {type(mechanism.position).__name__} reads"
        return None

    def leaves_fused_path(self, mechanism: Mechanism, *, dropout: float, training: bool) -> str | None:
        """Why it is not fused on a CPU; None if it is."""
        if dropout > 0:
            return "weights are dropped"
        if training and mechanism.position.has_bias and mechanism.position.learns_bias:
            return "a bias is learned"
        return None

    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        unfused = self.leaves_fused_path(mechanism, dropout=call.dropout, training=call.training)
        if call.device == "cpu" and unfused is not None:
            return f"not fused on a CPU, since {unfused}: keeps {call.n_weights:,} weights"
        if mechanism.position.has_bias:
            return "fused, with a dense bias"
        plain = is_plain(mask, call.n_queries, call.n_keys, call.offset)
        return "fused" if plain else "fused, with a dense mask"

    def compute(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        mask: Mask | None,
        offset: int,
        dropout: float,
    ) -> Tensor:
        n_heads, n_queries, n_keys = query.shape[1], query.shape[2], key.shape[2]
        bias = dense_bias(mechanism, n_heads, n_queries, n_keys, offset, query.device)
        causal = mask is not None and bias is None and is_plain(mask, n_queries, n_keys, offset)
        allowed = None
        if mask is not None and not causal:
            allowed = mask.dense(n_queries, n_keys, offset=offset, device=query.device)
        score = mechanism.score
        return fused(
            score.at_query(query),
            score.at_key(key),
            value,
            mechanism,
            bias=bias,
            allowed=allowed,
            causal=causal,
            dropout=dropout,
        )


def is_plain(mask: Mask | None, n_queries: int, n_keys: int, offset: int) -> bool:
    """Whether the fused kernel needs no dense mask."""
    return mask is None or (offset == 0 and mask.is_causal(n_queries, n_keys))


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mechanism: Mechanism,
    *,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Query and key after the maps of the score, value (B, M, S, V) -> (B, N, T, V), with a dense bias and a mask that
    broadcast to (B, N, T, S)."""
    score, n_features = mechanism.score, value.shape[-1]
    assert isinstance(score, DotProductScore)
    additive = allowed
    if bias is not None:
        bias = bias.to(query.dtype)
        additive = bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))
    null_query = False
    if isinstance(mechanism.normalizer, SoftmaxOffByOne | LearnedSink):
        key, value = F.pad(key, (0, 0, 1, 0)), F.pad(value, (0, 0, 1, 0))
        if isinstance(mechanism.normalizer, LearnedSink):
            learned = (mechanism.normalizer.logits / score.scale).to(query.dtype)[:, None, None]
            query = torch.cat([query, learned.expand(len(query), -1, query.shape[2], 1)], -1)
            is_sink = torch.arange(key.shape[2], device=key.device)[:, None] == 0
            key = torch.cat([key, is_sink.to(key.dtype).expand(*key.shape[:3], 1)], -1)
        null_query = causal  # so that the diagonal stays where it is
        if causal:
            query = F.pad(query, (0, 0, 1, 0))
        elif additive is not None:
            additive = F.pad(additive, (1, 0), value=True if bias is None else 0.0)
    width = max(query.shape[-1], n_features)
    attended = F.scaled_dot_product_attention(
        _filled(query, width),
        _filled(key, width),
        _filled(value, width),
        attn_mask=additive,
        dropout_p=dropout,
        is_causal=causal,
        scale=score.scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended[:, :, int(null_query) :, :n_features]


def _filled(tensor: Tensor, width: int) -> Tensor:
    """Padded with zeros to this width, the last dimension contiguous."""
    if tensor.shape[-1] < width:
        return F.pad(tensor, (0, width - tensor.shape[-1]))
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
