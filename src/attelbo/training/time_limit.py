"""A training that ends when its time is up, in the usual way: validated, saved, evaluated."""

import re
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.errors import ConfigError


class TimeLimit(Callback):
    """Ends the epoch, and the training, after the block in which its time is up. The time includes validations,
    checkpoints, and training before an interruption. Schedules are stretched over all planned steps.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.is_up = False
        """Whether it has ended the training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)  # a run whose time was up before it was killed does not train on

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stepper: Any = pl_module.stepper
        if not trainer.strategy.reduce_boolean_decision(stepper.seconds >= self.seconds, all=False):
            return
        if not self.is_up and trainer.is_global_zero:
            sys.stderr.write(f"trainer.max_time: ended after {stepper.step:,} of {stepper.total_steps:,} steps\n")
        self.is_up = trainer.should_stop = True


def out_of_time(trainer: Trainer) -> bool:
    """Whether a training was ended by its time limit."""
    return any(isinstance(each, TimeLimit) and each.is_up for each in trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]


def seconds_of(max_time: str) -> int:
    """The seconds of "DD:HH:MM:SS", Lightning's form.

    Raises:
        ConfigError: it has another form, or is no time at all.
    """
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", max_time)
    days, hours, minutes, seconds = map(int, match.groups()) if match else (0, 0, 0, 0)
    total = ((24 * days + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ConfigError(f"trainer.max_time must be days:hours:minutes:seconds, such as 00:01:30:00, got {max_time}")
    return total
