"""What generated tasks on sets have in common: training sets that never come twice, the others the same in every run.

A training set is drawn on the training device when its batch is made, from the default generator, as everything random
about a training batch is: nothing is stored, and no set comes twice. Sets have different sizes and are filled up with
padding, so that all batches have one shape.

Shapes: n or B sets, N elements of the largest, D numbers each.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.data.batch import IGNORE, Batch, DataSpec, Evaluated
from attelbo.data.module import Splits, fixed_generator
from attelbo.data.resident import ResidentSplit
from attelbo.data.tasks.base import FreshSplit, GeneratedDataModule


class Sets(NamedTuple):
    """Sets and what is asked about them."""

    x: Tensor
    """(n, N, D), zeros where there is no element."""
    size: Tensor
    """Elements of each, (n,), int64; they come first."""
    y: Tensor
    """(n,)."""

    def batch(self, index: Tensor) -> Batch:
        """As a model gets them: each row is one set, 0 where there is an element and -1 where there is none."""
        return Batch(self.x, self.y, index, torch.where(there_are(self.size, self.x.shape[1]), 0, IGNORE))


class SetTask(ABC):
    """A way to draw sets with their answers."""

    @abstractmethod
    def spec(self, name: str) -> DataSpec:
        """What a row is like."""

    @abstractmethod
    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Sets:
        """n independent sets, from the device's default generator if none is given."""


class SetDataModule(GeneratedDataModule):
    """A generated task on sets: those to train on are drawn anew for each batch."""

    task: SetTask

    def _load(self) -> Splits:
        return {
            "train": FreshSplit(self.task, self.sizes["train"]),
            "validation": self._kept("validation"),
            "test": self._kept("test"),
        }

    def _trained(self) -> ResidentSplit:
        """As many as in an epoch, drawn once: those that were trained on are gone."""
        return self._kept("trained")

    def _kept(self, split: Evaluated) -> "KeptSets":
        generator = fixed_generator(f"{split} sets")
        return KeptSets(self.task.draw(self.size(split), torch.device("cpu"), generator))


class KeptSets(ResidentSplit):
    """Sets in memory."""

    def __init__(self, sets: Sets) -> None:
        self.x, self.size, self.y = sets

    def __len__(self) -> int:
        return len(self.x)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        return Sets(*(part.index_select(0, index) for part in (self.x, self.size, self.y))).batch(index)


def there_are(size: Tensor, n: int) -> Tensor:
    """Which of n places sets of these sizes (B,) fill: (B, n), bool."""
    return torch.arange(n, device=size.device) < size.unsqueeze(-1)
