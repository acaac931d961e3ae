"""Tasks without end: training rows are drawn anew for each batch, the others once, the same in every run.

A training row is drawn on the training device when its batch is made, from the default generator, as everything random
about a training batch is: nothing is stored, and no row comes twice.

Shapes: n or B rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from attelbo.data.batch import Batch, DataSpec, Evaluated
from attelbo.data.module import Splits, fixed_generator
from attelbo.data.resident import ResidentSplit
from attelbo.data.tasks.base import GeneratedDataModule


class Rows(Protocol):
    """A named tuple of tensors, whose first dimension is that of the rows."""

    def _asdict(self) -> dict[str, Tensor]: ...

    def batch(self, index: Tensor) -> Batch:
        """As a model gets them; ``index`` (n,) are their numbers."""
        ...


class FreshTask(ABC):
    """A way to draw rows."""

    @abstractmethod
    def spec(self, name: str) -> DataSpec:
        """What a row is like."""

    @abstractmethod
    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Rows:
        """n independent rows, from the device's default generator if none is given."""


class FreshDataModule(GeneratedDataModule):
    """A generated task; those of its rows to train on are drawn anew for each batch."""

    called: ClassVar[str]
    """What rows are called; what is drawn once follows from it."""

    def _load(self) -> Splits:
        return {
            "train": FreshSplit(self.task, self.sizes["train"]),
            "validation": self._kept("validation", self.task),
            "test": self._kept("test", self.task),
        }

    def _trained(self) -> ResidentSplit:
        """As many as in an epoch, drawn once: those that were trained on are gone."""
        return self._kept("trained", self.task)

    def _kept(self, split: Evaluated, task: FreshTask, name: str = "") -> "KeptSplit":
        n = self.sizes["train" if split == "trained" else split]
        generator = fixed_generator(f"{split} {self.called} {name}".strip())
        return KeptSplit(task.draw(n, torch.device("cpu"), generator))


class FreshSplit(ResidentSplit):
    """Rows that are drawn anew whenever they are asked for: their number only counts an epoch.

    Args:
        task: what draws them.
        n_rows: in an epoch.
    """

    def __init__(self, task: FreshTask, n_rows: int) -> None:
        self.task = task
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def materialize(self, index: Tensor) -> Batch:
        return self.task.draw(len(index), index.device).batch(index)


class KeptSplit(ResidentSplit):
    """Rows that were drawn once; their tensors are its attributes."""

    def __init__(self, rows: Rows) -> None:
        self._rows_of: Callable[..., Any] = type(rows)
        vars(self).update(rows._asdict())

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        return self._rows_of(*(part.index_select(0, index) for part in self._tensors().values())).batch(index)
