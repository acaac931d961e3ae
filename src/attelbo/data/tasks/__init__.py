"""Tasks: generated rows whose answers are known; nothing to download."""

from attelbo.data.tasks.associative_recall import AssociativeRecall
from attelbo.data.tasks.base import Task, TaskDataModule
from attelbo.data.tasks.copy import Copy
from attelbo.data.tasks.functions import FunctionDataModule, FunctionTask
from attelbo.data.tasks.gaussian_process import GaussianProcess
from attelbo.data.tasks.max_of_set import MaxOfSet
from attelbo.data.tasks.mixtures import Mixtures
from attelbo.data.tasks.reverse import Reverse
from attelbo.data.tasks.sets import SetDataModule, SetTask
from attelbo.data.tasks.sort import Sort

__all__ = [
    "AssociativeRecall",
    "Copy",
    "FunctionDataModule",
    "FunctionTask",
    "GaussianProcess",
    "MaxOfSet",
    "Mixtures",
    "Reverse",
    "SetDataModule",
    "SetTask",
    "Sort",
    "Task",
    "TaskDataModule",
]
