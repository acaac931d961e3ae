"""The readable reference: every mechanism, with explicit weights; O(T S) memory; twice differentiable.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, V of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.kernels.base import Call, Kernel, Mechanism, dense_bias, grouped
from attelbo.attention.masks import Mask


def attention_weights(
    query: Tensor,
    key: Tensor,
    mechanism: Mechanism,
    *,
    mask: Mask | None = None,
    offset: int | None = None,
    first_key: int = 0,
) -> Tensor:
    """The weights (B, N, T, S) of query (B, N, T, D) and key (B, M, S, D); arguments as in ``Kernel``, of keys that are
    those from ``first_key`` on."""
    n_heads, n_queries, n_keys = query.shape[1], query.shape[2], key.shape[2]
    offset = n_keys - n_queries if offset is None else offset
    allowed = None
    if mask is not None and not mask.allows_all(n_queries, first_key + n_keys, offset):
        allowed = mask.dense(n_queries, n_keys, offset=offset, first_key=first_key, device=query.device)
    bias = dense_bias(mechanism, n_heads, n_queries, n_keys, offset, query.device, first_key)
    return weights_of(mechanism.score(query, grouped(key, n_heads)), mechanism, bias, allowed, query)


def weights_of(
    scores: Tensor, mechanism: Mechanism, bias: Tensor | None, allowed: Tensor | None, query: Tensor
) -> Tensor:
    """From scores (..., N, T, S) of query (..., N, T, D) to weights, with a bias and a mask that broadcast."""
    if mechanism.position.reads_scores:
        scores = scores + mechanism.position.of_scores(query, scores, allowed).to(scores.dtype)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if mechanism.soft_cap is not None:
        scores = mechanism.soft_cap * torch.tanh(scores / mechanism.soft_cap)
    return mechanism.normalizer(scores, allowed)


class Eager(Kernel):
    """Computes the definition."""

    name = "eager"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        return None

    def describe(self, mechanism: Mechanism, mask: Mask | None, call: Call) -> str:
        return f"keeps {call.n_weights:,} weights"

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
        weights = attention_weights(query, key, mechanism, mask=mask, offset=offset)
        if dropout > 0:
            weights = F.dropout(weights, dropout)
        return weights @ grouped(value, query.shape[1])
