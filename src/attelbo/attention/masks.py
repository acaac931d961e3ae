"""Masks: who may attend to whom. True = may attend, everywhere.

A mask is a predicate on positions, and masks compose: ``Causal() & SlidingWindow(128) | Prefix(n)``. Each is rendered
as a kernel wants it: a dense tensor, a predicate for FlexAttention, the ``is_causal`` of PyTorch's fused kernel, or the
range of keys that a run of queries may see.

Positions are absolute and count keys from 0. ``offset`` is the position of the first query; where nothing else is said
it is S - T, so that the last query stands at the last key: a causal mask is aligned at the bottom right, as decoding
with a cache needs it (PyTorch's ``is_causal`` is aligned at the top left). A query that may attend to nothing gets
zeros, from every kernel.

Shapes: B batch, T queries, S keys.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

EVERYTHING = 1 << 30
"""A bound that no position reaches."""


class Mask(ABC):
    """A predicate on (row of the batch, position of the query, position of the key)."""

    @abstractmethod
    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether the key may be attended to: three integer tensors that broadcast -> bool."""

    @property
    def batch_size(self) -> int | None:
        """B where it differs between the rows of a batch; None: it is the same for all."""
        return None

    def of_rows(self, rows: slice | Tensor) -> "Mask":
        """The mask of these rows of the batch."""
        return self

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        """[low, high) outside of which no query in first..last may attend to any key; may be too wide, never too
        narrow."""
        return 0, EVERYTHING

    def is_causal(self, n_queries: int, n_keys: int) -> bool:
        """Whether PyTorch's ``is_causal``, aligned at the top left, says the same of so many queries and keys."""
        return False

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        """Whether it is known, without a look at the tensors in it, that nothing is masked."""
        return False

    def dense(self, n_queries: int, n_keys: int, *, offset: int | None = None, device: torch.device | None) -> Tensor:
        """The mask as a bool tensor (B or 1, 1, T, S), the 1 for the heads."""
        offset = n_keys - n_queries if offset is None else offset
        batch = torch.arange(self.batch_size or 1, device=device)[:, None, None]
        query = torch.arange(offset, offset + n_queries, device=device)[:, None]
        key = torch.arange(n_keys, device=device)
        allowed = self.allows(batch, query, key)
        return allowed.expand(len(batch), n_queries, n_keys).unsqueeze(1)

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, other)

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, other)


def merged(first: Mask | None, second: Mask | None) -> Mask | None:
    """What both allow; None stands for a mask that allows everything."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


@dataclass(frozen=True)
class Full(Mask):
    """Everything may be attended to."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones_like(query + key, dtype=torch.bool)

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return True


@dataclass(frozen=True)
class Causal(Mask):
    """No key behind the query."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return 0, last + 1

    def is_causal(self, n_queries: int, n_keys: int) -> bool:
        return n_queries == n_keys

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return offset >= n_keys - 1


@dataclass(frozen=True)
class SlidingWindow(Mask):
    """Keys less than ``width`` positions away. With ``Causal()``: ``width`` visible keys, the query's own included."""

    width: int

    def __post_init__(self) -> None:
        _at_least_one("width", self.width)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() < self.width

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return first - self.width + 1, last + self.width

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return max(offset + n_queries - 1, n_keys - 1 - offset) < self.width


@dataclass(frozen=True)
class Prefix(Mask):
    """The first ``length`` keys, to which everyone may attend."""

    length: int

    def __post_init__(self) -> None:
        _at_least_one("length", self.length)

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
        _at_least_one("size", self.size)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query // self.size == key // self.size

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return first // self.size * self.size, (last // self.size + 1) * self.size

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return max(offset + n_queries, n_keys) <= self.size


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """The keys that are there: ``valid`` (B, S), bool.

    Raises:
        ValueError: another shape or type; numbers would be taken for a bias elsewhere.
    """

    valid: Tensor

    def __post_init__(self) -> None:
        if self.valid.dtype != torch.bool or self.valid.ndim != 2:
            raise ValueError(
                f"valid must be a bool tensor (B, S), True where there is a key, got {self.valid.dtype} "
                f"{tuple(self.valid.shape)}; did you mean a bias on the scores? that is a Position"
            )

    @classmethod
    def of_lengths(cls, lengths: Tensor, n_keys: int) -> "Padding":
        """Of rows of which the first ``lengths`` (B,) keys are there."""
        return cls(torch.arange(n_keys, device=lengths.device) < lengths.unsqueeze(-1))

    @property
    def batch_size(self) -> int | None:
        return len(self.valid)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.valid[batch, key] & (query == query)

    def of_rows(self, rows: slice | Tensor) -> "Padding":
        return Padding(self.valid[rows])


@dataclass(frozen=True, eq=False)
class Document(Mask):
    """Keys of the query's own document: ``ids`` (B, S) by absolute position, negative where there is only padding.

    Raises:
        ValueError: another shape or type.
    """

    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.is_floating_point() or self.ids.dtype == torch.bool or self.ids.ndim != 2:
            raise ValueError(f"ids must be integers (B, S), got {self.ids.dtype} {tuple(self.ids.shape)}")

    @property
    def batch_size(self) -> int | None:
        return len(self.ids)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = self.ids[batch, key]
        return (self.ids[batch, query] == own) & (own >= 0)

    def of_rows(self, rows: slice | Tensor) -> "Document":
        return Document(self.ids[rows])


@dataclass(frozen=True, eq=False)
class _Pair(Mask):
    first: Mask
    second: Mask

    @property
    def batch_size(self) -> int | None:
        return self.first.batch_size or self.second.batch_size

    def of_rows(self, rows: slice | Tensor) -> Mask:
        return type(self)(self.first.of_rows(rows), self.second.of_rows(rows))


class And(_Pair):
    """What both allow."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allows(batch, query, key) & self.second.allows(batch, query, key)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        (low, high), (other_low, other_high) = self.first.key_range(first, last), self.second.key_range(first, last)
        return max(low, other_low), min(high, other_high)

    def is_causal(self, n_queries: int, n_keys: int) -> bool:
        pair = (self.first, self.second)
        return any(
            one.is_causal(n_queries, n_keys)
            and (other.allows_all(n_queries, n_keys, 0) or other.is_causal(n_queries, n_keys))
            for one, other in (pair, pair[::-1])
        )

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return self.first.allows_all(n_queries, n_keys, offset) and self.second.allows_all(n_queries, n_keys, offset)


class Or(_Pair):
    """What one of them allows."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allows(batch, query, key) | self.second.allows(batch, query, key)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        (low, high), (other_low, other_high) = self.first.key_range(first, last), self.second.key_range(first, last)
        return min(low, other_low), max(high, other_high)

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return self.first.allows_all(n_queries, n_keys, offset) or self.second.allows_all(n_queries, n_keys, offset)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
