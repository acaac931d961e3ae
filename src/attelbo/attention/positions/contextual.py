"""Contextual positions: how far back a key lies is counted in tokens that the query itself chooses to count.

    gate(t, s) = sigmoid(score(q_t, k_s)),   p(t, s) = gate(t, s) + gate(t, s + 1) + ... + gate(t, t)
    score(q_t, k_s) + <q_t, e[p(t, s)]>,   e[p] interpolated between the learned e[0], e[1], ..., e[P - 1]

So a head can look for "the third sentence before", if its gates open at the ends of sentences. Keys that are masked for
a query are not counted.

Source: Golovneva, Wang, Weston & Sukhbaatar 2024, "Contextual Position Encoding: Learning to Count What's Important"
(arXiv:2405.18719), eqs. 3-5; as in their listing, contexts of more than P - 1 gates share e[P - 1], and the vectors are
zero at the start, the same for all heads, and not divided by sqrt(D). Differs: all layers share them.

Shapes: B batch, N heads, T queries, S keys, D features of a head, P places.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.positions.base import Position
from attelbo.attention.precision import full_precision
from attelbo.checks import check_at_least


class Contextual(Position):
    """A learned vector for the number of open gates from the key to the query, compared with the query.

    Args:
        head_dim: D.
        causal: whether no key comes after its query.
        places: P.

    Raises:
        ValueError: fewer than two places, or attention that is not causal.
    """

    reads_scores = True

    def __init__(self, head_dim: int, causal: bool = True, places: int = 64) -> None:
        super().__init__()
        check_at_least(2, places=places)
        if not causal:
            raise ValueError(
                "Contextual: gates are counted from a key to the query behind it: causal attention only; "
                "Rotary (rope), RelativeBias and Alibi tell distances on both sides"
            )
        self.table = nn.Parameter(torch.zeros(head_dim, places))

    def of_scores(self, query: Tensor, scores: Tensor, allowed: Tensor | None) -> Tensor:
        n_features, n_places = self.table.shape
        gates = torch.sigmoid(full_precision(scores))
        if allowed is not None:
            gates = gates.masked_fill(~allowed, 0.0)
        at = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=n_places - 1)  # (..., T, S)
        below = at.detach().long().clamp(max=n_places - 2)
        of_places = full_precision(query[..., :n_features] @ self.table.to(query.dtype))  # (..., T, P)
        lower, upper = of_places.gather(-1, below), of_places.gather(-1, below + 1)
        return lower + (at - below) * (upper - lower)
