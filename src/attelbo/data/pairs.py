"""Pairs of rows that differ in a few factors of variation and agree in the others, drawn on the device.

Locatello, Poole, Raetsch, Schoelkopf, Bachem & Tschannen 2020, "Weakly-Supervised Disentanglement Without Compromises"
(arXiv:2002.02886), sec. 3 and 5: of the second of a pair k of the factors are drawn anew. Nothing says which.

Shapes: N rows, B batch, F factors that vary, T tries.
"""

import sys
from typing import Literal

import torch
from torch import Tensor

from attelbo.data.resident import ResidentSplit
from attelbo.errors import ConfigError

Pairs = int | Literal["random"]
"""In how many factors the two of a pair differ: k, or a number from 1 to F - 1 that is drawn for each pair."""

TRIES = 8
"""Where three quarters of a grid of factors are rows, one row in 65,536 finds no partner with so many."""
_FEW = 0.01


class Pairing:
    """Draws a partner for each row.

    Every set of k factors is as likely as any other, and each of them takes another value, all equally likely; a
    combination that no row has is drawn again, with the same k. A row that finds no other in ``TRIES`` draws is paired
    with itself.

    Differs from the authors' code, in which a factor that is drawn anew may come out as it was, and k is 1 in every
    other pair if it is random.

    Args:
        factors: classes of the rows, (N, F'), int64, F of which vary. Combinations may be missing or repeated.
        differ: k, or ``random``.

    Raises:
        ValueError: k is none of 1..F, or fewer than two factors vary; begins with ``pairs``.
    """

    def __init__(self, factors: Tensor, differ: Pairs) -> None:
        varies = factors[:, (factors != factors[0]).any(0)]
        check_pairs(differ, varies.shape[1], "these rows")
        self.classes = torch.stack([column.unique(return_inverse=True)[1] for column in varies.unbind(1)], 1)  # (N, F)
        self.differ: Pairs = differ
        self.n_values = self.classes.amax(0) + 1
        self.strides = torch.cat([self.n_values.new_ones(1), self.n_values.cumprod(0)[:-1]])
        self.keys, self.rows = (self.classes * self.strides).sum(1).sort()

    def to(self, device: torch.device) -> None:
        """Move everything to the device; nothing happens if it is there already."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.device != device:
                setattr(self, name, value.to(device))

    def partners(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A row for each of the rows ``index`` (B,), on its device, (B,) int64; from the default generator if None."""
        self.to(index.device)
        classes = self.classes.index_select(0, index).unsqueeze(1)  # (B, 1, F)
        batch, _, n_factors = classes.shape

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=index.device)

        if self.differ == "random":
            k = 1 + (uniform(batch, 1, 1) * (n_factors - 1)).long()
        else:
            k = torch.full((batch, 1, 1), self.differ, device=index.device)
        chosen = uniform(batch, TRIES, n_factors).argsort(-1).argsort(-1) < k
        steps = 1 + (uniform(batch, TRIES, n_factors) * (self.n_values - 1)).long()  # 1 .. n_values - 1
        others = classes + chosen * steps
        others = torch.where(others < self.n_values, others, others - self.n_values)
        keys = (others * self.strides).sum(-1)  # (B, T)
        start, stop = torch.searchsorted(self.keys, keys), torch.searchsorted(self.keys, keys, right=True)
        found = stop > start
        first = found.to(torch.uint8).argmax(1, keepdim=True)
        start, stop = start.gather(1, first), stop.gather(1, first)
        place = start + (uniform(batch, 1) * (stop - start)).long()
        other = self.rows[place.clamp(max=len(self.rows) - 1)]
        return torch.where(found.gather(1, first), other, index.unsqueeze(1)).squeeze(1)

    def share_alone(self, n: int = 4096) -> float:
        """The share of rows that are paired with themselves, estimated from ``n`` of them."""
        index = torch.arange(min(n, len(self.classes)), device=self.classes.device)
        generator = torch.Generator(index.device).manual_seed(0)
        return float((self.partners(index, generator) == index).double().mean())


def check_pairs(pairs: Pairs, n_factors: int, name: str) -> None:
    """Raise ValueError unless the two of a pair can differ in so many of the factors that vary."""
    if n_factors < 2:
        raise ValueError(f"pairs must be null for {name}, of which fewer than two factors vary, got {pairs}")
    if pairs != "random" and not 1 <= pairs <= n_factors:
        raise ValueError(f"pairs must be in 1..{n_factors}, the factors that vary, or random, got {pairs}")


def pairing_of(rows: ResidentSplit, pairs: Pairs, name: str) -> Pairing:
    """The pairing of a data set's training rows, with a note where many of them are paired with themselves.

    Raises:
        ConfigError: fewer factors vary among these rows than pairs are to differ in.
    """
    factors: Tensor = rows.y  # pyright: ignore[reportAttributeAccessIssue]  (data with factors have them here)
    try:
        pairing = Pairing(factors, pairs)
    except ValueError as error:
        raise ConfigError(f"data.{error}") from error
    if (alone := pairing.share_alone()) > _FEW:
        sys.stderr.write(
            f"note: for {alone:.0%} of the training rows of {name} none was found that differs in so many factors, "
            f"data.pairs={pairs}: each of these is paired with itself\n"
        )
    return pairing
