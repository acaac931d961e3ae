"""What generated tasks have in common: rows drawn once, the same in every run, and no question in two splits.

A hash of its tokens decides which split a question belongs to, as in minGPT's sorting demo: an eighth is for
validation, an eighth for testing. Where there are few different questions they come again and again in their split.

Shapes: N rows, B batch, T tokens.
"""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import Batch, DataSpec, Evaluated, Split
from attelbo.data.module import ResidentDataModule, Splits, build_part, fixed_generator
from attelbo.data.options import ResidentOptions
from attelbo.data.resident import ResidentSplit
from attelbo.errors import ConfigError

_EIGHTHS: dict[Split, tuple[int, ...]] = {"validation": (0,), "test": (1,), "train": (2, 3, 4, 5, 6, 7)}
_ROUNDS = 64
"""After so many times the expected number of draws, a split that is still short of rows is given up."""
_AT_ONCE = 16_384
"""Rows in a draw: long rows, of which an eighth is kept, would else take gigabytes for a moment."""


class Task(ABC):
    """A way to draw questions with their answers."""

    @abstractmethod
    def spec(self, name: str) -> DataSpec:
        """What a row is like."""

    length: int
    """Of a question, as this task counts it."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n independent rows: x (n, T), and y (n, T), -1 where nothing is asked; int64."""

    def at_length(self, length: int) -> Self:
        """The same task of another length, made of its attributes, which are the constructor's arguments.

        Raises:
            ValueError: there are no such questions.
        """
        return type(self)(**{**vars(self), "length": length})


class GeneratedDataModule(ResidentDataModule):
    """A generated task; a subclass says how its rows are drawn and kept.

    Args:
        name: in reports.
        task: the class in ``attelbo.data.tasks`` that draws it.
        train_size: training rows.
        validation_size: validation rows.
        test_size: test rows.
        options: those of :class:`~attelbo.data.options.ResidentOptions`; the rows depend on none of them.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        name: str,
        task: Spec,
        train_size: int,
        validation_size: int,
        test_size: int,
        **options: Unpack[ResidentOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, train_size=train_size, validation_size=validation_size, test_size=test_size)
        self.task: Any = build_part("task", task)
        self._spec = self.task.spec(name)
        self.sizes: dict[Split, int] = {"train": train_size, "validation": validation_size, "test": test_size}

    @property
    def spec(self) -> DataSpec:
        return self._spec

    def _content(self) -> tuple[Any, ...]:
        return type(self.task).__qualname__, sorted(vars(self.task).items()), self.sizes


class TaskDataModule(GeneratedDataModule):
    """A generated task on sequences, whose rows are drawn once."""

    task: Task

    @property
    def length(self) -> int:
        """The task's."""
        return self.task.length

    def at_length(self, length: int, split: Evaluated) -> Self:
        """With questions of another length, as many."""
        other = copy(self)
        other.task = self.task.at_length(length)
        other._spec = other.task.spec(self.spec.name)
        of: Split = "train" if split == "trained" else split
        other.sizes = {of: self.sizes[of]}
        other._splits, other._loaded = {}, {}
        return other

    def _load(self) -> Splits:
        return {split: TaskSplit(*self._draw(split, size)) for split, size in self.sizes.items()}

    def _draw(self, split: Split, size: int) -> tuple[Tensor, Tensor]:
        generator = fixed_generator(f"{split} rows")
        drawn: list[tuple[Tensor, Tensor]] = []
        expected = 8 * size // len(_EIGHTHS[split]) + 8
        n = min(expected, _AT_ONCE)
        for _ in range(_ROUNDS * -(-expected // n)):
            x, y = self.task.draw(n, generator)
            own = torch.isin(eighth(x), torch.tensor(_EIGHTHS[split]))
            drawn.append((x[own].int(), y[own].int()))
            if sum(len(rows) for rows, _ in drawn) >= size:
                xs, ys = zip(*drawn, strict=True)
                return torch.cat(xs)[:size], torch.cat(ys)[:size]
        raise ConfigError(f"data.task: too few different questions for {size:,} {split} rows of {self.spec.name}")


class TaskSplit(ResidentSplit):
    """Questions x (N, T) and answers y (N, T)."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        small = int(max(x.max(), y.max())) <= torch.iinfo(torch.int16).max
        self.x, self.y = (tokens.to(torch.int16 if small else torch.int32) for tokens in (x, y))

    def __len__(self) -> int:
        return len(self.x)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        return Batch(self.x.index_select(0, index).long(), self.y.index_select(0, index).long(), index)


def eighth(x: Tensor) -> Tensor:
    """Which eighth of all questions each row of x (N, T) belongs to, 0..7: a hash of its tokens."""
    factors = torch.randint(1 << 62, x.shape[1:], generator=torch.Generator().manual_seed(0)) | 1
    mixed = ((x + 1) * factors).sum(-1)  # modulo 2^64, as all of this
    mixed = (mixed ^ (mixed >> 29)) * 0x5851F42D4C957F2D
    return (mixed >> 40) & 7
