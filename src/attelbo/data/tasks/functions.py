"""What generated tasks on functions, known at some points, have in common.

A row is a function: places x, values y, and which points are its context, which its targets. Each function has a
context of its own size and is filled up with padding, so that all batches have one shape.

Shapes: n or B functions, N points of the largest, X numbers of a place and Y of a value.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import CONTEXT, IGNORE, TARGET, Batch
from attelbo.data.resident import ResidentSplit
from attelbo.data.tasks.fresh import FreshDataModule, FreshTask


class Sizes(NamedTuple):
    """How many points of a function are known, and how many are asked for."""

    max_points: int
    """N, of both together."""
    min_context: int
    min_target: int

    def check(self) -> None:
        """Raise ValueError, which names these fields, unless there is room for both."""
        check_at_least(1, min_context=self.min_context, min_target=self.min_target)
        check_at_least(self.min_context + self.min_target, max_points=self.max_points)

    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """The segments (n, N) int8 of n functions: CONTEXT first, then TARGET, then padding.

        The context has ``min_context`` to ``max_points - min_target`` points, all sizes equally likely; the targets
        ``min_target`` up to as many as there is room for.
        """
        most = self.max_points - self.min_target
        context = torch.randint(self.min_context, most + 1, (n, 1), device=device, generator=generator)
        room = most - context + 1  # different numbers of targets that are possible
        share = torch.rand(n, 1, device=device, generator=generator)
        target = self.min_target + (share * room).long().clamp(max=room - 1)
        place = torch.arange(self.max_points, device=device)
        asked = torch.where(place < context + target, TARGET, IGNORE)
        return torch.where(place < context, CONTEXT, asked).to(torch.int8)


class Functions(NamedTuple):
    """Functions by some of their points."""

    x: Tensor
    """(n, N, X)."""
    y: Tensor
    """(n, N, Y)."""
    segments: Tensor
    """(n, N), int8: CONTEXT, TARGET or padding."""

    def batch(self, index: Tensor) -> Batch:
        """As a model gets them: each row is one function."""
        return Batch(self.x, self.y, index, self.segments.long())


class FunctionTask(FreshTask):
    """A way to draw functions."""

    sizes: Sizes

    @abstractmethod
    def places(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Where each of n functions is looked at: (n, N, X)."""

    @abstractmethod
    def values(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Those of n functions, drawn independently, at their places x (n, any number, X): (n, any number, Y)."""

    def others(self) -> Mapping[str, "FunctionTask"]:
        """Tasks of other functions, by name, which a model of these is tested on too: out of its distribution."""
        return {}

    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Functions:
        """n independent functions, from the device's default generator if none is given."""
        x = self.places(n, device, generator)
        return Functions(x, self.values(x, generator), self.sizes.draw(n, device, generator))


class FunctionDataModule(FreshDataModule):
    """A generated task on functions: those to train on are drawn anew for each batch."""

    task: FunctionTask
    called = "functions"

    @property
    def shifted(self) -> dict[str, ResidentSplit]:
        return {name: self._kept("test", task, name) for name, task in self.task.others().items()}
