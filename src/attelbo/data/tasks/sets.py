"""What generated tasks on sets have in common: training sets that never come twice, the others the same in every run.

A training set is drawn on the training device when its batch is made, from the default generator, as all that is random
about a training batch: nothing is stored, and a run sees as many sets as it has steps to see them. Sets have different
sizes and are filled up with padding, so that all batches have one shape.

Shapes: n or B sets, N elements of the largest, D numbers each.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.data.batch import IGNORE, Batch, DataSpec, Split
from attelbo.data.module import ResidentDataModule, Splits, at_least, build_part, fixed_generator
from attelbo.data.resident import ResidentSplit


class Sets(NamedTuple):
    """Sets and what is asked about them."""

    x: Tensor
    """(n, N, D), zeros where there is no element."""
    size: Tensor
    """Elements of each, (n,), int64; they come first."""
    y: Tensor
    """(n,)."""


class SetTask(ABC):
    """A way to draw sets with their answers."""

    @abstractmethod
    def spec(self, name: str) -> DataSpec:
        """What a row is like."""

    @abstractmethod
    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Sets:
        """n independent sets, from the device's default generator if none is given."""


class SetDataModule(ResidentDataModule):
    """A generated task on sets.

    Args:
        name: in reports.
        task: the class in ``attelbo.data.tasks`` that draws it.
        root: the folder of data sets, of which a task needs none.
        seed: the run's seed.
        batch_size: sets in a training minibatch, per device.
        eval_batch_size: sets in a validation or test minibatch, per device.
        train_size: training sets in an epoch.
        validation_size: validation sets.
        test_size: test sets.
        drop_last: leave out the training rows at the end of an epoch that do not fill a minibatch.
        minibatches_per_block: training minibatches in one Lightning step; 0: plain Lightning batches.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        name: str,
        task: Spec,
        root: str,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        train_size: int,
        validation_size: int,
        test_size: int,
        drop_last: bool = False,
        minibatches_per_block: int = 16,
    ) -> None:
        super().__init__(root, seed, batch_size, eval_batch_size, drop_last, minibatches_per_block)
        at_least(1, train_size=train_size, validation_size=validation_size, test_size=test_size)
        self.task: SetTask = build_part("task", task)
        self._spec = self.task.spec(name)
        self.sizes: dict[Split, int] = {"train": train_size, "validation": validation_size, "test": test_size}

    @property
    def spec(self) -> DataSpec:
        return self._spec

    def _content(self) -> tuple[Any, ...]:
        return type(self.task).__qualname__, sorted(vars(self.task).items()), self.sizes

    def _load(self) -> Splits:
        return {
            "train": FreshSets(self.task, self.sizes["train"]),
            "validation": self._kept("validation"),
            "test": self._kept("test"),
        }

    def _kept(self, split: Split) -> "KeptSets":
        generator = fixed_generator(f"{split} sets")
        return KeptSets(self.task.draw(self.sizes[split], torch.device("cpu"), generator))


class FreshSets(ResidentSplit):
    """Rows that are drawn anew whenever they are asked for: their number only counts an epoch.

    Args:
        task: what draws them.
        n_rows: in an epoch.
    """

    def __init__(self, task: SetTask, n_rows: int) -> None:
        self.task = task
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def materialize(self, index: Tensor) -> Batch:
        return as_batch(self.task.draw(len(index), index.device), index)


class KeptSets(ResidentSplit):
    """Sets in memory."""

    def __init__(self, sets: Sets) -> None:
        self.x, self.size, self.y = sets

    def __len__(self) -> int:
        return len(self.x)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        return as_batch(Sets(*(part.index_select(0, index) for part in (self.x, self.size, self.y))), index)


def as_batch(sets: Sets, index: Tensor) -> Batch:
    """Sets as a model gets them: each row is one set, 0 where there is an element and -1 where there is none."""
    there = there_are(sets.size, sets.x.shape[1])
    return Batch(sets.x, sets.y, index, torch.where(there, 0, IGNORE))


def there_are(size: Tensor, n: int) -> Tensor:
    """Which of n places sets of these sizes (B,) fill: (B, n), bool."""
    return torch.arange(n, device=size.device) < size.unsqueeze(-1)
