"""From blocks of rows to optimizer steps: the hot path of training.

One ``training_step`` of Lightning costs about a millisecond beside the model's own arithmetic. So the
loader of resident data yields *blocks*, the rows of several consecutive minibatches, and
:class:`BlockStepper` takes all their optimizer steps within one call. Values to log stay on the
device as tensors and are read at most once a block, never once a step.

Every step begins by seeding the default generator with a function of (run seed, step, rank): noise,
binarization and augmentation depend on nothing else, so a run continues bit for bit from any block.

Shapes: S minibatches in a block, T terms of the loss.
"""

import time
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from attelbo.data import ResidentDataModule
from attelbo.data.batch import Block, ResidentData
from attelbo.data.loader import rows_per_rank
from attelbo.errors import ConfigError
from attelbo.models import Model
from attelbo.seeding import derive_seed
from attelbo.training.compilation import CompiledLosses, compiler_missing, steps_to_pay
from attelbo.training.engine import (
    AnyPosition,
    AnyStep,
    EagerEngine,
    Engine,
    Position,
    Step,
    fresh_autocast,
    seed_default_generator,
)
from attelbo.training.fused_adam import parameters_of
from attelbo.training.graphs import GraphEngine
from attelbo.training.optimization import choose_optimizations, is_alone, scales_gradients
from attelbo.training.planning import planned_steps, refuse_single_rows
from attelbo.training.replicas import Seat
from attelbo.training.term_means import TermMeans

Switch = Literal["auto"] | bool
"""auto: where it was measured to pay."""


class BlockStepper(Callback):
    """Takes the optimizer steps of a :class:`~attelbo.models.Model` over blocks of resident data.

    It is a Callback too, so that Lightning saves its state in every checkpoint and tells it when an epoch
    ends; it must be the first in the list, since the others read its counts.

    Args:
        seed: the run's seed.
        log_every_n_steps: optimizer steps between two lines of ``train/*`` values to the loggers; at most one line is
            written for a block, with its means.
        micro_batches: parts that a minibatch is split into to save memory; see
            :class:`~attelbo.training.engine.Step` for the losses whose gradients do not add up.
        clip_norm: largest norm of the gradient; no limit if None.
        compile: put the losses through ``torch.compile``.
        cuda_graphs: record an optimizer step as a CUDA graph and replay it.
        seat: the run's place among replicas, if it is one.
    """

    def __init__(
        self,
        seed: int,
        log_every_n_steps: int = 50,
        micro_batches: int = 1,
        clip_norm: float | None = None,
        compile: Switch = "auto",
        cuda_graphs: Switch = "auto",
        seat: Seat | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.log_every_n_steps = log_every_n_steps
        self.micro_batches = micro_batches
        self.clip_norm = clip_norm
        self.compile: Switch = compile
        self.cuda_graphs: Switch = cuda_graphs
        self.seat = seat
        self.engine: Engine | None = None
        """Chosen at the first block, when optimizers and their state are there."""

        self.step = 0
        """Optimizer steps taken so far."""
        self.total_steps = 0
        """Optimizer steps of the whole training, which schedules are stretched over."""
        self.rows_seen = 0
        """Rows trained on so far, by all devices together."""
        self.row_tokens: int | None = None
        """The tokens of a row, where all rows have as many."""
        self._seconds_before = 0.0
        self._started: float | None = None

        self.means = TermMeans(log_every_n_steps)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of what the model's losses() returns."""
        return self.means.names

    @property
    def block_values(self) -> Tensor:
        """The terms at each optimizer step of the last block, (S, T), on the device."""
        return self.means.block

    def latest(self) -> dict[str, Tensor]:
        """The means of the terms over the last block, as tensors on the device."""
        return self.means.latest()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach to the model: from now on its ``training_step`` passes blocks to this stepper.

        Raises:
            ConfigError: the data come in single batches or do not fill one, or the gradient's norm cannot be clipped
                with this precision and optimizer.
        """
        assert isinstance(pl_module, Model)
        self._started = self._now()
        self.model, self.trainer = pl_module, trainer
        self.data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.model.stepper = self
        self.model.automatic_optimization = False
        self.total_steps = planned_steps(trainer, self.data)
        self.row_tokens = self.data.row_tokens
        self.engine = None
        self.check(trainer, pl_module, self.data)

    def check(self, trainer: Trainer, model: Model, data: ResidentData) -> None:
        """Check that these settings can train this model on these data, which are loaded; may be called before
        ``setup``.

        Raises:
            ConfigError: it cannot, here.
        """
        choose_optimizations(model, model.players(), trainer, self.clip_norm)
        crops = data.crops(trainer.strategy.root_device)
        if self.compile is True and (missing := compiler_missing(trainer.strategy.root_device)):
            raise ConfigError(f"trainer.compile=true: {missing}; trainer.compile=false does without")
        if self.compile is True and crops:
            raise ConfigError(
                "trainer.compile=true takes minibatches of one shape, and on a CPU those of these data are cropped to "
                "their longest rows; trainer.compile=false runs them"
            )
        if crops and self.seat is not None and self.seat.group.stack is True:
            raise ConfigError(
                "trainer.stack=true takes minibatches of one shape, and on a CPU those of each replica are cropped to "
                "their own longest rows; trainer.stack=false trains one after the other"
            )
        if self.cuda_graphs is True and not _can_use_graphs(trainer):
            raise ConfigError(
                "trainer.cuda_graphs=true takes one GPU and 32-true or bf16 precision; auto uses graphs where it can"
            )
        if scales_gradients(trainer) and self.clip_norm is not None and model.optimizer_spec.get("fused"):
            raise ConfigError(
                "trainer.clip_norm: a fused optimizer unscales 16-bit gradients too late to clip them; "
                "set optimizer.fused=false or trainer.precision=bf16-mixed"
            )

    def _compiles(self) -> bool:
        device = self.trainer.strategy.root_device
        if self.compile != "auto":
            return self.compile
        worthwhile = self.total_steps >= steps_to_pay(self.model, device) and not self.data.crops(device)
        return is_alone(self.trainer) and worthwhile and not compiler_missing(device)

    def _choose_engine(self) -> Engine:
        players = self.model.players()
        if self._compiles():
            rows = min(self.data.batch_size, rows_per_rank(self.data.rows_per_epoch, self.trainer.world_size))
            part, required = -(-rows // self.micro_batches), self.compile is True
            players = [replace(each, losses=CompiledLosses(each.losses, part, required=required)) for each in players]
        optimizations = choose_optimizations(self.model, players, self.trainer, self.clip_norm)
        step = Step(self.model, players, optimizations, self.data, self.micro_batches)
        position = Position(self.model, self.seed, self.total_steps, self.trainer.global_rank)
        if self.seat is not None:
            return self.seat.engine(step, position, self._make_engine)
        return self._make_engine(step, position)

    def _make_engine(self, step: AnyStep, position: AnyPosition) -> Engine:
        if self.cuda_graphs is not False and _can_use_graphs(self.trainer):
            return GraphEngine(step, position, required=self.cuda_graphs is True)
        return EagerEngine(step, position)

    @property
    def seconds(self) -> float:
        """The time that training has taken so far, with validations and checkpoints, and with what came before the
        checkpoint that it was resumed from."""
        return self._seconds_before + (0.0 if self._started is None else self._now() - self._started)

    def _now(self) -> float:
        return self.seat.clock() if self.seat is not None else time.perf_counter()

    # -- the hot path ------------------------------------------------------------------------------

    def __call__(self, block: Block) -> None:
        """Take one optimizer step for each minibatch of the block."""
        if self.engine is None:
            self.total_steps = self._planned()
            self.engine = self._choose_engine()
        minibatches = self.data.minibatches(block)[: self.total_steps - self.step]
        if not minibatches:
            return
        with fresh_autocast():
            values = self.engine.run(minibatches, self.step)
        self.step += len(minibatches)
        sizes = [len(rows) for rows in minibatches]
        self.rows_seen += sum(sizes) * self.trainer.world_size
        # Lightning logs, validation too, at its count of training_step calls: make that the count of steps.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.step
        self.means.add(self.engine.terms, values, sizes, self.step, self.trainer.loggers)

    def _planned(self) -> int:
        """The steps of the whole training. Those before a checkpoint count as they were taken: their minibatches may
        have had another size."""
        blocks = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1  # this one is counted
        done = blocks * self.data.minibatches_per_block
        return planned_steps(self.trainer, self.data, self.step, self.trainer.current_epoch, done)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # Where the step is Lightning's, it has unscaled 16-bit gradients only now.
        if self.clip_norm is not None:
            clip_grad_norm_(parameters_of(optimizer), self.clip_norm)

    # -- around the training and its epochs ----------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the optimizers' settings of the configuration: learning rate, decay, ..."""
        self._settings = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore them: a checkpoint's optimizer state has its own settings, perhaps those of another run."""
        for optimizer, groups in zip(trainer.optimizers, self._settings, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update(settings)
        self.model.at_step(self.step, self.total_steps)  # so that the rate logged before the first step is its own

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last validation: in an epoch without one, early stopping and loggers would use it again."""
        for name in [name for name in trainer.callback_metrics if name.startswith("val/")]:
            del trainer.callback_metrics[name]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.means.write(trainer.loggers)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the exact means of the epoch, weighted by rows."""
        self.means.write(trainer.loggers)
        if (means := self.means.take_epoch()) is None:
            return
        means = trainer.strategy.reduce(means, reduce_op="mean")
        metrics = {f"train/{name}_epoch": mean for name, mean in zip(self.terms, means.tolist(), strict=True)}
        trainer.callback_metrics.update({name: torch.tensor(mean) for name, mean in metrics.items()})
        # Lightning would write them after the checkpoint: a process killed in between would leave a gap in the curves.
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, self.step)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The same noise in every validation: the curve shows the model, not the draw."""
        seed_default_generator(derive_seed(self.seed, "validation", batch_idx, trainer.global_rank), pl_module.device)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.means.write(trainer.loggers)

    # -- exact resume ------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # A run that goes on from there drops what was logged later, and has all that was before.
        self.means.write(trainer.loggers)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "rows_seen": self.rows_seen,
            "seconds": self.seconds,
            **self.means.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        self.rows_seen = state_dict["rows_seen"]
        self._seconds_before = state_dict["seconds"]
        self.means.load_state_dict(state_dict)


def check_steps(trainer: Trainer, model: Model, data: ResidentDataModule) -> int:
    """Check that a configured Trainer can train this model on these data, which are loaded, and count the steps of the
    whole training.

    Raises:
        ConfigError: it cannot, here.
    """
    (stepper,) = (each for each in cast(Any, trainer).callbacks if isinstance(each, BlockStepper))
    refuse_single_rows(model, data, trainer.world_size, stepper.micro_batches)
    stepper.check(trainer, model, data)
    return planned_steps(trainer, data)


def _can_use_graphs(trainer: Trainer) -> bool:
    return is_alone(trainer) and trainer.strategy.root_device.type == "cuda"
