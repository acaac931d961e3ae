"""Dot products of query and key.

Source: Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1
(dot); Vaswani et al. 2017, "Attention Is All You Need", eq. 1 (scaled).

Shapes: D features of a head.
"""

from attelbo.attention.scores.base import DotProductScore
from attelbo.checks import check_positive


class Dot(DotProductScore):
    """<q, k>."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0


class ScaledDot(DotProductScore):
    """scale * <q, k>.

    Args:
        head_dim: D.
        scale: 1 / sqrt(D) if None.

    Raises:
        ValueError: a scale that is not positive and finite.
    """

    def __init__(self, head_dim: int, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None:
            check_positive(scale=scale)
        self.scale = head_dim**-0.5 if scale is None else scale
