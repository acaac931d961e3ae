"""A bias for each head and distance, computed from the distance by a small network: defined for distances never seen.

    bias_n(t, s) = <v_n, relu(w d + b)>,   d = sign(s - t) log(1 + |s - t|)

Source: Liu et al. 2022, "Swin Transformer V2: Scaling Up Capacity and Resolution" (arXiv:2111.09883), eqs. 3-4: in
log-spaced coordinates a sequence twice as long asks for little that is new. Differs: of tokens in a row, not of pixels;
the bias is not squashed, as that of their code is.

Shapes: N heads, T queries, S keys, H hidden features, K distances.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.positions.base import Position
from attelbo.attention.precision import full_precision
from attelbo.checks import check_at_least


class ContinuousBias(Position):
    """The output of a network with one hidden layer for key position - query position, on the scores.

    Args:
        heads: N.
        hidden: H.

    Raises:
        ValueError: no heads, or no hidden features.
    """

    has_bias = True
    learns_bias = True
    computes_bias = True

    def __init__(self, heads: int, hidden: int = 64) -> None:
        super().__init__()
        check_at_least(1, heads=heads, hidden=hidden)
        self.heads = heads
        # No nn.Linear: models that draw the weights of these anew make them small, and the network nearly linear.
        self.weight, self.shift = (nn.Parameter(torch.empty(hidden).uniform_(-1, 1)) for _ in range(2))
        self.output = nn.Parameter(0.02 * torch.randn(hidden, heads))

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Each distance once. Positions have no gaps, so there are fewer distances than positions of both kinds.
        nearest = key.min() - query.max()
        of_distances = self.of_distances(nearest + torch.arange(query.numel() + key.numel(), device=query.device))
        return of_distances[key - query - nearest, head]

    def of_distances(self, distances: Tensor) -> Tensor:
        """The bias (K, N) of each head for distances (K,)."""
        weight = full_precision(self.weight)
        d = distances.sign() * distances.abs().to(weight.dtype).log1p()
        hidden = torch.relu(d.unsqueeze(-1) * weight + self.shift)
        return hidden.to(self.output.dtype) @ self.output
