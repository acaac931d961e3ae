"""Stops a run at the first term that is NaN or infinite, and says where.

The values of a block of optimizer steps are checked together, so a step costs nothing. On an accelerator they are
copied while the next block runs, so training never waits; a fault is then noticed one block late, but always
before a validation and before a checkpoint.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.data.batch import Block
from attelbo.errors import TrainingDiverged
from attelbo.training.arriving import Arriving
from attelbo.training.callbacks.base import stepper_of

_DERIVED = ("loss", "elbo", "distortion_rate")
"""Sums of other terms: named only when none of their parts is to blame."""


@dataclass(frozen=True, slots=True)
class _BlockRecord:
    """What is needed to report the step and the rows in a block that may have been trained a while ago."""

    values: Arriving  # (S, T)
    terms: tuple[str, ...]
    block: Block
    first_step: int  # of the block, counted from 1
    epoch: int  # counted from 1


class NanGuard(Callback):
    """Raises `attelbo.errors.TrainingDiverged` at the first non-finite term; the run is then marked failed."""

    def __init__(self) -> None:
        self._pending: _BlockRecord | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Block, batch_idx: int
    ) -> None:
        self._check_pending(trainer)
        stepper = stepper_of(pl_module)
        values, first_step = Arriving(stepper.block_values), stepper.step - len(stepper.block_values) + 1
        self._pending = _BlockRecord(values, stepper.terms, batch, first_step, trainer.current_epoch + 1)
        if not values.is_under_way:
            self._check_pending(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last step of an epoch may break the weights after its own loss was still finite."""
        if trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/"):
                check_finite(pl_module, trainer.current_epoch + 1, name, float(value))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning runs checkpoint callbacks after all others: a diverged model is never saved.
        self._check_pending(trainer)

    def _check_pending(self, trainer: Trainer) -> None:
        record, self._pending = self._pending, None
        if record is None:
            return
        values = record.values.read()
        # A sum is finite only if its parts are; where a sum of finite values overflows, the second check finds them so.
        finite = math.isfinite(values.sum().item()) or bool(values.isfinite().all())
        if trainer.world_size > 1:
            self._check_together(trainer, None if finite else _diverged(record))
        elif not finite:
            raise _diverged(record)

    @staticmethod
    def _check_together(trainer: Trainer, own: TrainingDiverged | None) -> None:
        """All processes stop, with the same message, when one of them has diverged: none is left waiting."""
        if trainer.strategy.reduce_boolean_decision(own is None, all=True):
            return
        found: list[TrainingDiverged | None] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, own)
        raise next(error for error in found if error is not None)


def check_finite(module: LightningModule, epoch: int, name: str, value: float) -> None:
    """Raise TrainingDiverged if what was measured of the module after this epoch is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingDiverged(stepper_of(module).step, epoch, name, value, rows=())


def _diverged(record: _BlockRecord) -> TrainingDiverged:
    values = record.values.read()
    bad = ~values.isfinite()  # (S, T)
    place = int(bad.any(1).nonzero()[0])
    guilty = [term for term, is_bad in zip(record.terms, bad[place].tolist(), strict=True) if is_bad]
    term = next((name for name in guilty if name not in _DERIVED), guilty[0])
    value = values[place, record.terms.index(term)].item()
    first = place * record.block.batch_size
    rows = record.block.index[first : first + record.block.batch_size]
    return TrainingDiverged(
        step=record.first_step + place,
        epoch=record.epoch,
        term=term,
        value=value,
        rows=rows.tolist(),
    )
