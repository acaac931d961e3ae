"""Masks for tokens that come after others which every query may attend to, such as learned memories.

Tokens that also attend to everyone themselves: Beltagy, Peters & Cohan 2020, "Longformer", section 3.1 (global
attention).

Shapes: S keys.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from attelbo.attention.masks.base import EVERYTHING, Mask
from attelbo.checks import check_at_least


@dataclass(frozen=True)
class Behind(Mask):
    """``mask`` for tokens shifted back by ``n`` places, after ``n`` keys that are always visible.

    Raises:
        ValueError: n below 1.
    """

    mask: Mask
    n: int

    def __post_init__(self) -> None:
        check_at_least(1, n=self.n)

    @property
    def batch_size(self) -> int | None:
        return self.mask.batch_size

    def of_rows(self, rows: slice | Tensor) -> "Behind":
        return type(self)(self.mask.of_rows(rows), self.n)

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.n) | self.mask.allowed(batch, query - self.n, (key - self.n).clamp(min=0))

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return 0, max(self.n, self.n + self.mask.key_range(first - self.n, last - self.n)[1])

    def reach(self, run: int, offset: int) -> tuple[int, int]:
        return EVERYTHING, EVERYTHING

    def present(self, n_keys: int) -> Tensor | None:
        present = self.mask.present(max(n_keys - self.n, 0))
        return None if present is None else F.pad(present, (self.n, 0), value=True)[:, :n_keys]

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        return n_keys <= self.n or self.mask.allows_all(n_queries, n_keys - self.n, offset - self.n)


class Global(Behind):
    """``mask`` for tokens shifted back by ``n`` places, after ``n`` tokens that see everyone and that everyone sees.

    Raises:
        ValueError: n below 1.
    """

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query < self.n) | super().allows(batch, query.clamp(min=self.n), key)

    def key_range(self, first: int, last: int) -> tuple[int, int]:
        return (0, EVERYTHING) if first < self.n else super().key_range(first, last)

    def present(self, n_keys: int) -> Tensor | None:
        return None

    def allows_all(self, n_queries: int, n_keys: int, offset: int) -> bool:
        first, end = max(offset, self.n), offset + n_queries  # of the others
        return end <= first or super().allows_all(end - first, n_keys, first)
