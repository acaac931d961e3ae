"""Logs the learning rate at the same steps as the training values.

Lightning's monitor counts blocks where our curves count optimizer steps, and refuses to run without
a logger.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.training.callbacks.base import StepperState, stepper_of
from attelbo.training.term_means import is_due


class LearningRate(Callback):
    """Logs ``lr``, or ``lr/<group>`` where parameter groups have names or there are several optimizers.

    At the start, at each epoch's end, and in between every ``log_every_n_steps`` optimizer steps.
    It has no state, so a resumed run logs what an uninterrupted one would have.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stepper = stepper_of(pl_module)
        if stepper.step == 0:
            self._log(trainer, stepper)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepper = stepper_of(pl_module)
        if _is_due(stepper):
            self._log(trainer, stepper)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stepper = stepper_of(pl_module)
        if not _is_due(stepper):  # else the last block has just logged it
            self._log(trainer, stepper)

    def _log(self, trainer: Trainer, stepper: StepperState) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({**_learning_rates(trainer), "epoch": trainer.current_epoch}, stepper.step)


def _is_due(stepper: StepperState) -> bool:
    """Whether the last block has reached a multiple of the logging interval."""
    return is_due(stepper.step, len(stepper.block_values), stepper.log_every_n_steps)


def _learning_rates(trainer: Trainer) -> dict[str, float]:
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    if len(trainer.optimizers) == 1 and not any("name" in group for group in groups):
        return {"lr": float(groups[0]["lr"])}  # the same for all
    return {f"lr/{group.get('name', place)}": float(group["lr"]) for place, group in enumerate(groups)}
