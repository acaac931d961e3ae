"""Persistent memories: learned keys and values, beside those of the tokens, that every query attends to.

    head_n = attend(q_n, [m_k, k], [m_v, v])_n,   m_k and m_v parameters

Source: Sukhbaatar, Grave, Lample, Jegou & Joulin 2019, "Augmenting Self-attention with Persistent Memory"
(arXiv:1907.01470), section 3. Differs from the paper: the feed-forward networks stay; memories belong to a head of keys
and values, which several heads of queries may share; they are initialized from a normal distribution with variance
1 / D. Memories have no position.

Shapes: B batch, T queries, S tokens, P memories, N heads, M heads of keys and values, D features of a head.
"""

from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.cache import KeyValues
from attelbo.attention.masks import Behind, Mask
from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.attention.positions import Position
from attelbo.attention.scores import Location
from attelbo.checks import check_at_least


class PersistentMemoryAttention(MultiHeadAttention):
    """Multi-head attention to the tokens and to P learned keys and values, also where a query may attend to no token.

    Args:
        memories: P.
        dim, heads, options: as in ``MultiHeadAttention``.

    Raises:
        ValueError: no memories, or location scores; those of ``MultiHeadAttention``.
    """

    as_projected = False  # memories stand nowhere

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        memories: int,
        **options: Unpack[AttentionOptions],
    ) -> None:
        check_at_least(1, memories=memories)
        if isinstance(options.get("score"), Location):
            raise ValueError("location scores compare places, and memories have none: choose another score")
        super().__init__(dim, heads, **options)
        self.memories = memories
        self.mechanism = replace(self.mechanism, position=BehindMemories(self.position, memories))
        shape = (self.kv_heads, memories, self.output.in_features // heads)
        self.memory_keys, self.memory_values = (nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5) for _ in range(2))

    def masked(self, mask: Mask | None) -> Mask | None:
        mask = super().masked(mask)
        return None if mask is None else Behind(mask, self.memories)

    def weights(self, query: Tensor, memory: Tensor | KeyValues | None = None, *, mask: Mask | None = None) -> Tensor:
        """The weights of the tokens, (B, N, T, S): a row sums to 1 minus the weight of the memories."""
        return super().weights(query, memory, mask=mask)[..., self.memories :]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        return super().attend(q, behind(self.memory_keys, k), behind(self.memory_values, v), mask)

    def attention_weights(self, q: Tensor, k: Tensor, mask: Mask | None) -> Tensor:
        """The weights of memories and tokens, (B, N, T, P + S)."""
        return super().attention_weights(q, behind(self.memory_keys, k), mask)

    def explain(self, n_queries: int | None = None, n_keys: int | None = None, **options: Any) -> str:
        """As for other layers; ``n_keys`` counts the tokens only."""
        if n_queries is not None:
            n_keys = self.memories + (n_queries if n_keys is None else n_keys)
        return super().explain(n_queries, n_keys, **options)


class BehindMemories(Position):
    """The bias of another position for tokens shifted back by ``n`` places; no bias for the memories before them.

    Args:
        position: the other one.
        n: memories before the first token.
    """

    def __init__(self, position: Position, n: int) -> None:
        super().__init__()
        self.position = position
        self.n = n
        self.has_bias = position.has_bias
        self.learns_bias = position.learns_bias
        self.computes_bias = position.computes_bias

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_tokens = self.position.bias(head, query - self.n, (key - self.n).clamp(min=0))
        return torch.where(key < self.n, 0.0, of_tokens)


def behind(memories: Tensor, of_tokens: Tensor) -> Tensor:
    """memories (M, P, D) and (B, M, S, D) -> (B, M, P + S, D)."""
    return torch.cat([memories.to(of_tokens.dtype).expand(len(of_tokens), -1, -1, -1), of_tokens], 2)
