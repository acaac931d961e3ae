"""What a data module hands over.

Shapes: B batch, (C, H, W) image, S minibatches in a block, F factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

DataKind = Literal["binary", "levels", "real"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What is known about a data set before any file is read: enough to build and check a model."""

    name: str
    shape: tuple[int, ...]
    """The shape of one x: (C, H, W)."""
    kind: DataKind
    """The values of x as the model sees them: {0, 1}, {0, 1/255, ..., 1} or real numbers."""
    n_classes: int | None = None
    """Classes in y; None where y holds factors of variation, or nothing."""
    n_labels: int | None = None
    """Training rows whose label is known; None: all of them."""


class Batch(NamedTuple):
    """One minibatch on the device, ready for the model."""

    x: Tensor
    """(B, C, H, W), float32."""
    y: Tensor | None
    """Labels (B,), -1 where one is not known, or factors of variation (B, F), int64, where the data set has them."""
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index)
    """Which rows of the split these are, (B,), int64."""


class Block(NamedTuple):
    """The rows of several consecutive minibatches: what a loader of resident data yields."""

    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index)
    """Rows of the split, (<= S * batch_size,), int64."""
    batch_size: int
    """Rows in each minibatch; the last one may be shorter."""
    split: Split
    """Where the rows are."""


class ResidentData(Protocol):
    """What a data module offers to whoever trains on blocks of its rows."""

    def minibatches(self, block: Block) -> Sequence[Tensor]:
        """The row indices of each minibatch in a block, (<= batch_size,) each."""
        ...

    def materialize(self, index: Tensor, split: Split) -> Batch:
        """The rows ``index`` (B,) of a split as a batch on the index's device."""
        ...
