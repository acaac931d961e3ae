"""Masks that depend on the positions of query and key only, the same for every row of a batch.

Sliding windows: Beltagy, Peters & Cohan 2020, "Longformer", section 3.1; prefixes: Raffel et al. 2020 (T5), section
3.2.1; causal blocks: Tian et al. 2024 (VAR), section 3.2.

Shapes: T queries, S keys.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from attelbo.attention.masks.base import EVERYTHING, Mask
from attelbo.checks import check_at_least


@dataclass(frozen=True)
class Full(Mask):
    """Everything may be attended to."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones_like(query + key, dtype=torch.bool)

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return True


@dataclass(frozen=True)
class Causal(Mask):
    """No key after the query."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return 0, last + 1

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        return EVERYTHING, 0

    def is_causal(self, n_queries: int, n_keys: int) -> bool:
        return n_queries == n_keys

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return offset >= n_keys - 1


@dataclass(frozen=True)
class SlidingWindow(Mask):
    """Keys less than ``width`` positions away. With ``Causal()``: ``width`` visible keys, the query's own included."""

    width: int

    def __post_init__(self) -> None:
        check_at_least(1, width=self.width)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() < self.width

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return first - self.width + 1, last + self.width

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        return self.width - 1, self.width - 1

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return max(offset + n_queries - 1, n_keys - 1 - offset) < self.width


@dataclass(frozen=True)
class Prefix(Mask):
    """The first ``length`` keys, to which everyone may attend."""

    length: int

    def __post_init__(self) -> None:
        check_at_least(1, length=self.length)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.length) & (query == query)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return 0, self.length

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return n_keys <= self.length


@dataclass(frozen=True)
class Block(Mask):
    """Keys in the same block of ``size`` consecutive positions."""

    size: int

    def __post_init__(self) -> None:
        check_at_least(1, size=self.size)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query // self.size == key // self.size

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return first // self.size * self.size, (last // self.size + 1) * self.size

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        aligned = run % self.size == 0 and offset % self.size == 0
        return (0, 0) if aligned else (self.size - 1, self.size - 1)

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return offset >= 0 and max(offset + n_queries, n_keys) <= self.size


@dataclass(frozen=True)
class BlockCausal(Mask):
    """No key of a block after the query's: blocks of these lengths in a row, with one more for all that follows."""

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        for length in self.lengths:
            check_at_least(1, length=length)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._block(key) <= self._block(query)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return 0, next((end for end in accumulate(self.lengths) if end > last), EVERYTHING)

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return self.key_range(offset, offset)[1] >= n_keys

    def _block(self, position: Tensor) -> Tensor:
        """Which block a position is in, without a tensor of the lengths, which would have to be copied to a device."""
        return torch.stack([position >= end for end in accumulate(self.lengths)]).sum(0)
