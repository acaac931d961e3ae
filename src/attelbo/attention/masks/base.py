"""What a mask is: a predicate for who may attend to whom. True = may attend, everywhere.

A mask is a predicate on positions, and masks compose: ``Causal() & SlidingWindow(128) | Prefix(n)``. Each is rendered
as a kernel wants it: a dense tensor, a predicate for FlexAttention, the ``is_causal`` of PyTorch's fused kernel, or the
range of keys that a run of queries may see.

Positions are absolute and count keys from 0. ``offset`` is the position of the first query; by default it is S - T, so
that the last query is at the position of the last key: a causal mask is aligned at the bottom right, as decoding with a
cache needs it (PyTorch's ``is_causal`` is aligned at the top left). A query that may attend to nothing gets zeros, from
every kernel.

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

    def allowed(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """:meth:`allows`, checked to give a bool for each pair.

        Raises:
            ValueError: it is something else, such as numbers to be added to the scores.
        """
        said = self.allows(batch, query, key)
        if not isinstance(said, Tensor) or said.dtype != torch.bool:
            kind = str(said.dtype).removeprefix("torch.") if isinstance(said, Tensor) else type(said).__name__
            raise ValueError(
                f"mask: {type(self).__name__}.allows must give bools in a tensor, True = may attend, got {kind}; "
                "did you mean a bias on the scores? that is a Position"
            )
        return said

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

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        """How many positions before the first and after the last of ``run`` consecutive queries, which begin at
        ``offset`` plus a multiple of ``run``, one of them may attend to: upper bounds."""
        return EVERYTHING, EVERYTHING

    def present(self, n_keys: int) -> Tensor | None:
        """The keys that any query may attend to, bool (B, S); None: possibly all of them, or the others are known to be
        finite."""
        return None

    def is_causal(self, n_queries: int, n_keys: int) -> bool:
        """Whether PyTorch's ``is_causal``, aligned at the top left, is the same mask for these numbers of queries and
        keys."""
        return False

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        """Whether nothing is masked, as far as is known without reading the tensors in it."""
        return False

    def dense(
        self,
        n_queries: int,
        n_keys: int,
        *,
        offset: int | None = None,
        first_key: int = 0,
        device: torch.device | None,
    ) -> Tensor:
        """The mask as a bool tensor (B or 1, 1, T, S), the 1 for the heads; of the keys from ``first_key`` on."""
        offset = n_keys - n_queries if offset is None else offset
        batch = torch.arange(self.batch_size or 1, device=device)[:, None, None]
        query = torch.arange(offset, offset + n_queries, device=device)[:, None]
        key = torch.arange(first_key, first_key + n_keys, device=device)
        allowed = self.allowed(batch, query, key)
        return allowed.expand(len(batch), n_queries, n_keys).unsqueeze(1)

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, other)

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, other)


def merged(first: Mask | None, second: Mask | None) -> Mask | None:
    """What both allow; None stands for a mask that allows everything.

    Raises:
        TypeError: one is no mask, such as a tensor.
    """
    for mask in (first, second):
        if mask is not None and not isinstance(mask, Mask):
            raise TypeError(
                f"mask must be a Mask, such as Causal() or Padding(valid), got a {type(mask).__name__}; "
                "did you mean a bias on the scores? that is a Position"
            )
    if first is None or second is None:
        return second if first is None else first
    return first & second


@dataclass(frozen=True)
class _Pair(Mask):
    """Raises ValueError where they are of batches of different sizes."""

    first: Mask
    second: Mask

    def __post_init__(self) -> None:
        sizes = {self.first.batch_size, self.second.batch_size} - {None}
        if len(sizes) > 1:
            raise ValueError(f"masks of batches of different sizes cannot be combined: {sorted(filter(None, sizes))}")

    @property
    def batch_size(self) -> int | None:
        return self.first.batch_size or self.second.batch_size

    def of_rows(self, rows: slice | Tensor) -> Mask:
        return type(self)(self.first.of_rows(rows), self.second.of_rows(rows))


class And(_Pair):
    """What both allow."""

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allowed(batch, query, key) & self.second.allowed(batch, query, key)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        (low, high), (other_low, other_high) = self.first.key_range(first, last), self.second.key_range(first, last)
        return max(low, other_low), min(high, other_high)

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        (before, behind), (other_before, other_behind) = self.first.reach(run, offset), self.second.reach(run, offset)
        return min(before, other_before), min(behind, other_behind)

    def present(self, n_keys: int) -> Tensor | None:
        first, second = self.first.present(n_keys), self.second.present(n_keys)
        return first & second if first is not None and second is not None else second if first is None else first

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
        return self.first.allowed(batch, query, key) | self.second.allowed(batch, query, key)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        (low, high), (other_low, other_high) = self.first.key_range(first, last), self.second.key_range(first, last)
        return min(low, other_low), max(high, other_high)

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        (before, behind), (other_before, other_behind) = self.first.reach(run, offset), self.second.reach(run, offset)
        return max(before, other_before), max(behind, other_behind)

    def present(self, n_keys: int) -> Tensor | None:
        first, second = self.first.present(n_keys), self.second.present(n_keys)
        return first | second if first is not None and second is not None else None

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return self.first.allows_all(n_queries, n_keys, offset) or self.second.allows_all(n_queries, n_keys, offset)
