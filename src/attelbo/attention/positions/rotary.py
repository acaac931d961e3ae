"""Rotary positions: pairs of features of query and key turn with the place, so that their dot product depends on the
distance only.

    <R(t) q, R(s) k> = <q, R(s - t) k>,   R(t): pair i turns by the angle t / base^(2i / D)

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", eq. 14-16 and 34; of images,
half of the pairs turning with the row and half with the column: Heo et al. 2024, "Rotary Position Embedding for Vision
Transformer", section 3.2 (axial).

Which features are a pair is no matter to the mathematics, but weights of one layout do not serve another:
"interleaved" (2i, 2i + 1) is the paper's and GPT-J's, "half" (i, i + D / 2) that of GPT-NeoX and the Llamas as most
load them.

Shapes: B batch, N heads, M heads of keys, T tokens, D features of a head, L places, H x W places of an image.
"""

from typing import Literal

import torch
from torch import Tensor

from attelbo.attention.positions.base import Position
from attelbo.attention.positions.tables import angles, check_divides, places, rows_and_columns
from attelbo.checks import check_at_least

Layout = Literal["half", "interleaved"]


class Rotation(Position):
    """Turns pair i of a token's features by the angle of its place.

    Cosines and sines are a table in float32, computed once in float64; the products with them are rounded to the type
    of query and key only at the end.

    Args:
        turns: angles (L, D / 2) of each place and pair.
        layout: which features are a pair.

    Raises:
        ValueError: no such layout; in use: a sequence longer than L, or tokens of other than D features.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, turns: Tensor, layout: Layout) -> None:
        super().__init__()
        if layout not in ("half", "interleaved"):
            raise ValueError(f"layout must be half or interleaved, got {layout!r}")
        self.layout = layout
        self.max_length = len(turns)
        # (c, s) turns a pair (a, b) into (a c - b s, b c + a s): the features times the cosines, plus their partners
        # times the sines, of which the first has a minus.
        pairs = (turns.cos(), turns.cos()), (-turns.sin(), turns.sin())
        join = torch.cat if layout == "half" else lambda parts, dim: torch.stack(parts, dim).flatten(-2)
        for name, parts in zip(("cosine", "sine"), pairs, strict=True):
            self.register_buffer(name, join(parts, -1).float(), persistent=False)

    def at_query_key(self, query: Tensor, key: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        if query.shape[-1] != self.cosine.shape[-1]:
            raise ValueError(f"angles of {self.cosine.shape[-1]} features cannot turn {query.shape[-1]}")
        cosine, sine = (places(table, first, query.shape[2]) for table in (self.cosine, self.sine))
        return self._turn(query, cosine, sine), self._turn(key, cosine, sine)

    def _turn(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        if self.layout == "half":
            partner = x.roll(x.shape[-1] // 2, -1)
        else:
            partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return torch.addcmul(x * cosine, partner, sine).to(x.dtype)


class Rotary(Rotation):
    """Query and key turned by their place in a sequence.

    Args:
        head_dim: D, even.
        max_length: L; a longer sequence is an error.
        layout: which features are a pair.
        base: the slowest pair turns once in about 2 pi times so many tokens.

    Raises:
        ValueError: an odd D, no places, no such layout; in use: a sequence longer than L.
    """

    def __init__(self, head_dim: int, max_length: int, layout: Layout = "half", base: float = 10_000.0) -> None:
        check_at_least(1, max_length=max_length)
        check_divides(2, "head_dim", head_dim, "pairs that turn")
        super().__init__(angles(torch.arange(max_length), head_dim // 2, base), layout)


class AxialRotary(Rotation):
    """The first half of the pairs turned by the row, the second by the column, in an image whose tokens come row by
    row.

    Args:
        head_dim: D, a multiple of 4.
        size: (H, W) of the grid of tokens; None is an error.
        max_length: L, with as many tokens in front of the image, which do not turn, as are not H W; H W if None.
        layout: which features are a pair.
        base: of the angles; the paper takes 100, since an image has fewer rows than a text tokens.

    Raises:
        ValueError: another D or size, L below H W, no such layout; in use: a sequence longer than L.
    """

    def __init__(
        self,
        head_dim: int,
        size: tuple[int, int] | None,
        max_length: int | None = None,
        layout: Layout = "half",
        base: float = 100.0,
    ) -> None:
        check_divides(4, "head_dim", head_dim, "pairs that turn with row and column")
        turns = torch.cat([angles(along, head_dim // 4, base) for along in rows_and_columns(size)], -1)
        in_front = 0 if max_length is None else max_length - len(turns)
        if in_front < 0:
            raise ValueError(f"max_length must be at least the {len(turns)} places of the image, got {max_length}")
        super().__init__(torch.cat([turns.new_zeros(in_front, head_dim // 2), turns]), layout)
