"""Masks that differ between the rows of a batch: padding, and documents that are packed into one row.

Shapes: B batch, S keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attelbo.attention.masks.base import Mask


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Only keys that are not padding: ``valid`` (B, S), bool.

    Raises:
        ValueError: another shape or type; numbers would be taken for a bias elsewhere.
    """

    valid: Tensor
    finite: bool = False
    """Whether the contents of padding are known to be finite, so that a weight of 0 is enough to exclude them."""

    def __post_init__(self) -> None:
        if self.valid.dtype != torch.bool or self.valid.ndim != 2:
            raise ValueError(
                f"valid must be a bool tensor (B, S), True where there is a key, got {self.valid.dtype} "
                f"{tuple(self.valid.shape)}; did you mean a bias on the scores? that is a Position"
            )

    @classmethod
    def of_lengths(cls, lengths: Tensor, n_keys: int) -> "Padding":
        """For rows whose first ``lengths`` (B,) keys are not padding."""
        return cls(torch.arange(n_keys, device=lengths.device) < lengths.unsqueeze(-1))

    @property
    def batch_size(self) -> int | None:
        return len(self.valid)

    def present(self, n_keys: int) -> Tensor | None:
        return None if self.finite else self.valid[:, :n_keys]

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.valid[batch, key] & (query == query)

    def of_rows(self, rows: slice | Tensor) -> "Padding":
        return Padding(self.valid[rows], self.finite)


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

    def present(self, n_keys: int) -> Tensor | None:
        return self.ids[:, :n_keys] >= 0

    def allows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = self.ids[batch, key]
        # Where there are more queries than keys, the first of them come before all documents.
        return (self.ids[batch, query.clamp(min=0)] == own) & (own >= 0) & (query >= 0)

    def of_rows(self, rows: slice | Tensor) -> "Document":
        return Document(self.ids[rows])
