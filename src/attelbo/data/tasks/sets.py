"""What generated tasks on sets have in common.

Sets have different sizes and are filled up with padding, so that all batches have one shape.

Shapes: n or B sets, N elements of the largest, D numbers each.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.data.batch import IGNORE, Batch
from attelbo.data.tasks.fresh import FreshDataModule, FreshTask


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


class SetTask(FreshTask):
    """A way to draw sets with their answers."""

    @abstractmethod
    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Sets:
        """n independent sets, from the device's default generator if none is given."""


class SetDataModule(FreshDataModule):
    """A generated task on sets: those to train on are drawn anew for each batch."""

    task: SetTask
    called = "sets"


def there_are(size: Tensor, n: int) -> Tensor:
    """Which of n places sets of these sizes (B,) fill: (B, n), bool."""
    return torch.arange(n, device=size.device) < size.unsqueeze(-1)
