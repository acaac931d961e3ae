"""The readable reference: every mechanism, with its weights at hand; O(T S) memory; can be differentiated twice.

Shapes: B batch, N heads, M heads of keys and values, T queries, S keys, D features of a head, V of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.kernels.base import Kernel, Mechanism, grouped
from attelbo.attention.masks import Mask


def attention_weights(
    query: Tensor, key: Tensor, mechanism: Mechanism, *, mask: Mask | None = None, offset: int | None = None
) -> Tensor:
    """The weights (B, N, T, S) of query (B, N, T, D) and key (B, M, S, D); arguments as in ``Kernel``."""
    n_heads, n_queries, n_keys = query.shape[1], query.shape[2], key.shape[2]
    offset = n_keys - n_queries if offset is None else offset
    scores = mechanism.score(query, grouped(key, n_heads))
    if mechanism.position.has_bias:
        scores = scores + dense_bias(mechanism, n_heads, n_queries, n_keys, offset, query.device).to(scores.dtype)
    if mechanism.soft_cap is not None:
        scores = mechanism.soft_cap * torch.tanh(scores / mechanism.soft_cap)
    masked = mask is not None and not mask.allows_all(n_queries, n_keys, offset)
    allowed = mask.dense(n_queries, n_keys, offset=offset, device=query.device) if mask and masked else None
    return mechanism.normalizer(scores, allowed)


def dense_bias(
    mechanism: Mechanism, n_heads: int, n_queries: int, n_keys: int, offset: int, device: torch.device
) -> Tensor:
    """The bias that the position adds to the scores, (N, T, S)."""
    head = torch.arange(n_heads, device=device)[:, None, None]
    query = torch.arange(offset, offset + n_queries, device=device)[:, None]
    return mechanism.position.bias(head, query, torch.arange(n_keys, device=device))


class Eager(Kernel):
    """Computes what is written down."""

    name = "eager"

    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
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
        weights = attention_weights(query, key, mechanism, mask=mask, offset=offset)
        if dropout > 0:
            weights = F.dropout(weights, dropout)
        return weights @ grouped(value, query.shape[1])
