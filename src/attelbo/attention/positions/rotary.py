"""Rotary positions: pairs of features of query and key are rotated in proportion to the position, so that their dot
product depends on the relative position only.

    <R(t) q, R(s) k> = <q, R(s - t) k>,   R(t): pair i turns by the angle t / base^(2i / D)

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", eq. 14-16 and 34; of images,
half of the pairs turning with the row and half with the column: Heo et al. 2024, "Rotary Position Embedding for Vision
Transformer", section 3.2 (axial). For longer sequences than a model was trained on, positions are compressed (Chen et
al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation", eq. 4) or slow pairs rotate
more slowly (NTK-aware: bloc97 2023; Peng et al. 2024, "YaRN", definition 1). Rotation of some of the pairs only: Black
et al. 2022 (GPT-NeoX). With a decay, dot products shrink with the distance (xPos: Sun et al. 2023, "A
Length-Extrapolatable Transformer", section 2.2).

How features are paired does not matter mathematically, but weights trained with one layout do not fit another:
"interleaved" (2i, 2i + 1) is the paper's and GPT-J's, "half" (i, i + D / 2) that of GPT-NeoX and the Llamas as most
load them.

Shapes: B batch, N heads, M heads of keys, T tokens, D features of a head, L places, H x W places of an image.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.positions.base import Position
from attelbo.attention.positions.tables import angles, check_divides, places, rows_and_columns
from attelbo.checks import check_at_least, check_choice, check_positive

Layout = Literal["half", "interleaved"]
Stretched = Literal["places", "base"]


class Rotation(Position):
    """Turns pair i of a token's features by the angle of its place.

    Cosines and sines are a table in float32, computed once in float64; the products with them are rounded to the type
    of query and key only at the end.

    Args:
        turns: angles (L, D / 2) of each place and pair.
        layout: which features are a pair.
        growth: factors (L, D / 2) by which pairs of queries are multiplied and pairs of keys divided; none if None.

    Raises:
        ValueError: no such layout; in use: a sequence longer than L, or tokens of other than D features.
    """

    cosine: Tensor
    sine: Tensor
    growth: Tensor | None

    def __init__(self, turns: Tensor, layout: Layout, growth: Tensor | None = None) -> None:
        super().__init__()
        check_choice("layout", layout, Layout)
        self.layout = layout
        self.max_length = len(turns)
        # (c, s) turns a pair (a, b) into (a c - b s, b c + a s): the features times the cosines, plus their partners
        # times the sines, of which the first has a minus.
        pairs = (turns.cos(), turns.cos()), (-turns.sin(), turns.sin())
        join = torch.cat if layout == "half" else lambda parts, dim: torch.stack(parts, dim).flatten(-2)
        for name, parts in zip(("cosine", "sine"), pairs, strict=True):
            self.register_buffer(name, join(parts, -1).float(), persistent=False)
        growth = None if growth is None else join((growth, growth), -1).float()
        self.register_buffer("growth", growth, persistent=False)

    def at_query_key(self, query: Tensor, key: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        if query.shape[-1] != self.cosine.shape[-1]:
            raise ValueError(f"angles of {self.cosine.shape[-1]} features cannot turn {query.shape[-1]}")
        cosine, sine = (places(table, first, query.shape[2]) for table in (self.cosine, self.sine))
        if self.growth is None:
            return self._turn(query, cosine, sine), self._turn(key, cosine, sine)
        growth = places(self.growth, first, query.shape[2])
        return self._turn(query, cosine * growth, sine * growth), self._turn(key, cosine / growth, sine / growth)

    def _turn(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        if self.layout == "half":
            partner = x.roll(x.shape[-1] // 2, -1)
        else:
            partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return torch.addcmul(x * cosine, partner, sine).to(x.dtype)


class Rotary(Rotation):
    """Query and key turned by their place in a sequence.

    If only a share of the pairs turns, it is the first ones of the layout: with "half" these are not the features that
    turn in GPT-NeoX, whose weights do not fit then.

    Args:
        head_dim: D, even.
        max_length: L; a longer sequence is an error.
        layout: which features are a pair.
        base: the slowest pair turns once in about 2 pi base tokens.
        share: the fraction of the pairs that turn, the first ones; at least one does.
        stretch: the factor by which sequences may be longer than those that the angles were meant for.
        stretched: what is stretched: "places" (all angles are divided by it) or "base" (the fastest pair turns as
            before, the slowest slower by this factor).

    Raises:
        ValueError: an odd D, no places, no such layout, a base that is not positive, a share outside (0, 1], a stretch
            below 1, nothing of that name to be stretched, or a base to be stretched of a single pair; in use: a
            sequence longer than L.
    """

    def __init__(
        self,
        head_dim: int,
        max_length: int,
        layout: Layout = "half",
        base: float = 10_000.0,
        share: float = 1.0,
        stretch: float = 1.0,
        stretched: Stretched = "places",
    ) -> None:
        check_at_least(1, max_length=max_length, stretch=stretch)
        check_positive(base=base, stretch=stretch)
        check_divides(2, "head_dim", head_dim, "pairs that turn")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        check_choice("stretched", stretched, Stretched)
        n_pairs = max(1, round(share * head_dim / 2))
        at = torch.arange(max_length, dtype=torch.float64)
        if stretched == "places":
            at = at / stretch
        elif stretch > 1 and n_pairs == 1:
            raise ValueError("stretched must be places where a single pair turns: its angles have no base")
        elif stretch > 1:
            base *= stretch ** (n_pairs / (n_pairs - 1))
        super().__init__(F.pad(angles(at, n_pairs, base), (0, head_dim // 2 - n_pairs)), layout)


class XPos(Rotation):
    """Query and key turned by their place in a sequence, and scaled, so that a key counts for less the farther it lies
    before the query: causal attention only, since one that comes after it would count for more.

        <q_t, k_s> turned, pair i times zeta_i^((t - s) / decay),   zeta_i = (2 i / D + 0.4) / 1.4

    Args:
        head_dim: D, even.
        max_length: L; a longer sequence is an error.
        causal: whether no token sees those after it.
        layout: which features are a pair.
        base: as of ``Rotary``.
        decay: tokens in which the fastest pair shrinks to 0.29.

    Raises:
        ValueError: an odd D, no places, no such layout, a base or decay that is not positive, or attention that is not
            causal; in use: a sequence longer than L.
    """

    def __init__(
        self,
        head_dim: int,
        max_length: int,
        causal: bool = True,
        layout: Layout = "half",
        base: float = 10_000.0,
        decay: float = 512.0,
    ) -> None:
        check_at_least(1, max_length=max_length)
        check_divides(2, "head_dim", head_dim, "pairs that turn")
        check_positive(base=base, decay=decay)
        if not causal:
            raise ValueError(
                "XPos: keys after a query would count for more the farther they are: causal attention only; Rotary "
                "(rope) without the decay, RelativeBias and Alibi tell distances on both sides"
            )
        at, n_pairs = torch.arange(max_length, dtype=torch.float64), head_dim // 2
        zeta = (torch.arange(n_pairs, dtype=torch.float64) / n_pairs + 0.4) / 1.4
        centred = at - (max_length - 1) / 2  # changes no product, and keeps both factors in range
        super().__init__(angles(at, n_pairs, base), layout, zeta ** (centred.unsqueeze(-1) / decay))


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
        ValueError: another D or size, L below H W, no such layout, a base that is not positive; in use: a sequence
            longer than L.
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
        check_positive(base=base)
        turns = torch.cat([angles(along, head_dim // 4, base) for along in rows_and_columns(size)], -1)
        in_front = 0 if max_length is None else max_length - len(turns)
        if in_front < 0:
            raise ValueError(f"max_length must be at least the {len(turns)} places of the image, got {max_length}")
        super().__init__(torch.cat([turns.new_zeros(in_front, head_dim // 2), turns]), layout)
