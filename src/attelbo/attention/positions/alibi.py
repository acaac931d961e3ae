"""Attention with linear biases: a penalty that grows linearly with the distance, with a slope for each head.

    score(q_t, k_s) - slope_n |t - s|,   slope_n = 2^(-8 n / N), n = 1 .. N, where N is a power of two

Source: Press, Smith & Lewis 2022, "Train Short, Test Long: Attention with Linear Biases Enables Input Length
Extrapolation", section 3. The paper is about causal attention; with |t - s| it is symmetric for encoders.

Shapes: N heads, T queries, S keys.
"""

import torch
from torch import Tensor

from attelbo.attention.positions.base import Position
from attelbo.checks import check_at_least


class Alibi(Position):
    """Minus a slope times the distance, on the scores; nothing is learned, and no sequence is too long.

    Args:
        heads: N.
    """

    has_bias = True
    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("slopes", torch.tensor(alibi_slopes(heads)), persistent=False)

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return -self.slopes[head] * (query - key).abs()


def alibi_slopes(heads: int) -> list[float]:
    """The slopes of N heads: for a power of two the geometric series of the paper; for others, as in the authors' code,
    that of the next smaller power, then every second one of the next larger.

    Raises:
        ValueError: heads below 1.
    """
    check_at_least(1, heads=heads)
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * n / power) for n in range(1, power + 1)]
    return slopes + [2 ** (-4 * n / power) for n in range(1, 2 * (heads - power), 2)]
