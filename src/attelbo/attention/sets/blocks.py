"""The blocks of the Set Transformer.

Source: Lee et al. 2019, "Set Transformer: A Framework for Attention-based Permutation-Invariant Neural Networks",
arXiv:1810.00825, eq. 6 to 11. Where paper and the authors' code differ: scores are scaled by 1 / sqrt(E), the width of
all heads together, as in the code (everybody else takes that of one head); residuals add the queries and heads are
projected back, as in the paper (in the code the projected queries are added, and nothing is projected back). The
row-wise feed-forward network is the code's: relu of one linear layer.

Shapes: B batch, T queries, S elements, E features, M learned points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.layer import check_heads
from attelbo.attention.masks import Padding
from attelbo.attention.multi_head import MultiHeadAttention
from attelbo.attention.scores import ScaledDot
from attelbo.attention.sets.padding import without_padding
from attelbo.checks import check_at_least


class MAB(nn.Module):
    """Multi-head attention block: norm(H + relu(W H)) with H = norm(X + attention(X, Y)) (eq. 6, 7).

    Args:
        dim: E.
        heads: must divide ``dim``.
        scale: of the scores; 1 / sqrt(E) if None.
        norm: LayerNorm as in the paper; without, as in the authors' experiments.

    Raises:
        ValueError: heads that do not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, *, scale: float | None = None, norm: bool = True) -> None:
        super().__init__()
        check_heads(dim, heads)
        score = ScaledDot(dim // heads, dim**-0.5 if scale is None else scale)
        self.attention = MultiHeadAttention(dim, heads, score=score)
        self.feed_forward = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.feed_forward_norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(
        self, x: Tensor, y: Tensor | None = None, *, values: Tensor | None = None, mask: Padding | None = None
    ) -> Tensor:
        """Queries X (B, T, E) attend to the set Y (B, S, E), or to each other if there is none -> (B, T, E).

        Args:
            x: the queries.
            y: the set.
            values: what is read of its elements, (B, S, E), if not Y itself.
            mask: which elements of the set are there.
        """
        if y is None:
            x = without_padding(x, mask)
            seen = self.attention(x, mask=mask)
        else:
            read = None if values is None else without_padding(values, mask)
            seen = self.attention(x, self.attention.keys_values(without_padding(y, mask), read), mask=mask)
        h = self.attention_norm(x + seen)
        return self.feed_forward_norm(h + F.relu(self.feed_forward(h)))


class SAB(nn.Module):
    """Set attention block: MAB(X, X) (eq. 8). Equivariant; O(S^2). Arguments and errors are those of ``MAB``."""

    def __init__(self, dim: int, heads: int, *, scale: float | None = None, norm: bool = True) -> None:
        super().__init__()
        self.block = MAB(dim, heads, scale=scale, norm=norm)

    def forward(self, x: Tensor, *, mask: Padding | None = None) -> Tensor:
        """A set (B, S, E), whose elements see each other -> (B, S, E)."""
        return self.block(x, mask=mask)


class ISAB(nn.Module):
    """Induced set attention block: MAB(X, H) with H = MAB(I, X) of M learned points I (eq. 9, 10).

    Elements see each other through the points. Equivariant; O(S M).

    Args:
        dim: E.
        heads: must divide ``dim``.
        n_points: M.
        scale: as in ``MAB``.
        norm: as in ``MAB``.

    Raises:
        ValueError: no points, or heads that do not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, n_points: int, *, scale: float | None = None, norm: bool = True) -> None:
        super().__init__()
        check_at_least(1, n_points=n_points)
        self.to_points = MAB(dim, heads, scale=scale, norm=norm)
        self.from_points = MAB(dim, heads, scale=scale, norm=norm)
        self.points = learned_points(n_points, dim)

    def forward(self, x: Tensor, *, mask: Padding | None = None) -> Tensor:
        """A set (B, S, E) -> (B, S, E)."""
        x = without_padding(x, mask)
        points = self.to_points(self.points.expand(len(x), -1, -1), x, mask=mask)
        return self.from_points(x, points)


class PMA(nn.Module):
    """Pooling by multi-head attention: MAB(S, X) of M learned seeds S (eq. 11). Invariant.

    The paper puts one more row-wise network on X; as in the authors' code, that is left to the blocks before it.

    Args:
        dim: E.
        heads: must divide ``dim``.
        n_seeds: M, the number of vectors that summarize a set.
        scale: as in ``MAB``.
        norm: as in ``MAB``.

    Raises:
        ValueError: no seeds, or heads that do not divide ``dim``.
    """

    def __init__(
        self, dim: int, heads: int, n_seeds: int = 1, *, scale: float | None = None, norm: bool = True
    ) -> None:
        super().__init__()
        check_at_least(1, n_seeds=n_seeds)
        self.block = MAB(dim, heads, scale=scale, norm=norm)
        self.seeds = learned_points(n_seeds, dim)

    def forward(self, x: Tensor, *, mask: Padding | None = None) -> Tensor:
        """A set (B, S, E) -> (B, M, E)."""
        return self.block(self.seeds.expand(len(x), -1, -1), x, mask=mask)


def learned_points(n: int, dim: int) -> nn.Parameter:
    """So many vectors (n, dim), Glorot-uniform."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, dim)))
