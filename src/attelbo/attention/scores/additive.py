"""Additive scores: a network with one hidden layer that sees query and key.

    additive  score(q, k) = v^T tanh(W q + U k)        concat  score(q, k) = v^T tanh(W [q; k])

The same family of functions: W [q; k] is W_1 q + W_2 k, and is computed so, once for each query and each key. They
differ in initialization and in how the parameters are grouped. Both take O(T S H) memory and as many tanh: a dot
product is some 50 times cheaper at 128 queries and keys, but hardly cheaper at one query.

Source: Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix
A.1.2; Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1
(concat).

Shapes: B batch, N heads, T queries, S keys, D features of a head, H hidden features.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.scores.base import Score
from attelbo.attention.scores.matrices import glorot, per_head
from attelbo.checks import check_at_least


class Additive(Score):
    """v^T tanh(W q + U k), with parameters of its own for each head.

    Args:
        heads: N.
        head_dim: D.
        hidden: H; D if None.

    Raises:
        ValueError: ``hidden`` below 1.
    """

    def __init__(self, heads: int, head_dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = self.numbers_per_pair = _hidden(head_dim, hidden)
        self.query_weight = nn.Parameter(glorot(heads, head_dim, hidden))
        self.key_weight = nn.Parameter(glorot(heads, head_dim, hidden))
        self.direction = nn.Parameter(glorot(heads, hidden, 1))

    def at_query(self, query: Tensor) -> Tensor:
        return per_head(query, self.query_weight)

    def at_key(self, key: Tensor) -> Tensor:
        return per_head(key, self.key_weight)

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        return _compare(query, key, self.direction)


class Concat(Score):
    """v^T tanh(W [q; k]), with parameters of its own for each head.

    Args:
        heads: N.
        head_dim: D.
        hidden: H; D if None.

    Raises:
        ValueError: ``hidden`` below 1.
    """

    def __init__(self, heads: int, head_dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = self.numbers_per_pair = _hidden(head_dim, hidden)
        self.weight = nn.Parameter(glorot(heads, 2 * head_dim, hidden))
        self.direction = nn.Parameter(glorot(heads, hidden, 1))

    def at_query(self, query: Tensor) -> Tensor:
        return per_head(query, self.weight[:, : query.shape[-1]])

    def at_key(self, key: Tensor) -> Tensor:
        return per_head(key, self.weight[:, key.shape[-1] :])

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        return _compare(query, key, self.direction)


def _compare(query: Tensor, key: Tensor, direction: Tensor) -> Tensor:
    """query (B, N, T, H), key (B, N, S, H), direction (N, H, 1) -> (B, N, T, S)."""
    hidden = torch.tanh(query.unsqueeze(3) + key.unsqueeze(2))  # (B, N, T, S, H)
    return per_head(hidden.flatten(2, 3), direction).unflatten(2, hidden.shape[2:4]).squeeze(-1)


def _hidden(head_dim: int, hidden: int | None) -> int:
    check_at_least(1, hidden=hidden)
    return head_dim if hidden is None else hidden
