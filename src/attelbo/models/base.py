"""What a model is: a LightningModule that states its loss once.

A model says how a batch becomes a loss (:meth:`Model.losses`). How batches become optimizer steps, one
by one or in blocks, is the business of the stepper that training hands to it; without one, a model is
an ordinary LightningModule and any ``lightning.Trainer`` trains it.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from attelbo.building import Spec, build
from attelbo.data.batch import Batch, Block
from attelbo.models.schedulers import Constant

Terms = dict[str, Tensor]
"""Scalars by name, each a mean over the batch; the first is ``loss``, what is minimized. Nats."""


class Stepper(Protocol):
    """Turns one call of ``training_step`` into optimizer steps."""

    total_steps: int
    """Optimizer steps in the whole training."""

    def __call__(self, block: Block) -> None:
        """Take the optimizer steps of a block."""
        ...


class Model(LightningModule, ABC):
    """A model with one optimizer: subclasses implement :meth:`losses`."""

    def __init__(self, optimizer: Spec, scheduler: Spec) -> None:
        super().__init__()
        self.optimizer_spec = optimizer
        self.scheduler_spec = scheduler
        self.stepper: Stepper | None = None

    @abstractmethod
    def losses(self, batch: Batch) -> Terms:
        """The scalar to minimize, ``loss``, and those worth watching, as means over the batch."""

    def at_step(self, step: int, total_steps: int) -> None:
        """Called before optimizer step ``step``, counted from 0: schedules move here."""

    def training_step(self, batch: Batch | Block, batch_idx: int) -> Tensor | None:
        if isinstance(batch, Block):
            assert self.stepper is not None, "a Block of rows needs the stepper of attelbo.training"
            self.stepper(batch)
            return None
        self.at_step(self.global_step, int(self.trainer.estimated_stepping_batches))
        terms = self.losses(batch)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=len(batch.x))
        return terms["loss"]

    # -- validation and test: exact means over a split -----------------------------------------------

    @abstractmethod
    def evaluation_step(self, batch: Batch) -> None:
        """Take a batch into the metrics of this pass over a split."""

    @abstractmethod
    def evaluation_results(self) -> Terms:
        """The metrics of the pass, by their name without the split, and a clean slate for the next."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_results("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        self._log_results("test")

    def _log_results(self, split: str) -> None:
        # The results are the same on every rank; without sync_dist Lightning would warn that they might not be.
        self.log_dict({f"{split}/{name}": value for name, value in self.evaluation_results().items()}, sync_dist=True)

    # -- Lightning's side ----------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build(self.optimizer_spec, list(self.parameters()))
        factor = build(self.scheduler_spec)
        if isinstance(factor, Constant):
            return optimizer
        total = self.stepper.total_steps if self.stepper else int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def count_parameters(module: torch.nn.Module) -> int:
    """Trainable numbers in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
