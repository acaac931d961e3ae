"""Tasks: generated rows whose answers are known; nothing to download."""

from attelbo.data.tasks.base import Task, TaskDataModule
from attelbo.data.tasks.reverse import Reverse
from attelbo.data.tasks.sort import Sort

__all__ = ["Reverse", "Sort", "Task", "TaskDataModule"]
