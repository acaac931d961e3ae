"""Backward pass and optimizer step, through Lightning or, where that adds nothing, by torch alone.

Lightning's wrappers serve several processes and gradient scalers; on one device in plain precision
they cost 0.2 ms a step, and torch's own bookkeeping around its fused Adam kernel as much again. That is an
eighth of the step of a small VAE, for which nothing is computed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from attelbo.errors import ConfigError
from attelbo.models import Model, Player
from attelbo.training.fused_adam import fused_adam_step, is_all_kernel, parameters_of


class Optimization(Protocol):
    """How a loss becomes a step of one player's optimizer."""

    def begin_block(self) -> None:
        """Called before the first step of a block."""

    def prepare(self) -> None:
        """Prepare for the steps of this block; otherwise the first of them does."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient to the parameters'."""

    def step(self) -> None:
        """Take an optimizer step, then clear the gradients."""

    def end_block(self, steps: int) -> None:
        """Called after the last of ``steps`` steps."""


def is_alone(trainer: Trainer) -> bool:
    """Whether this process trains on one device, without a gradient scaler, and needs nothing of Lightning's."""
    return isinstance(trainer.strategy, SingleDeviceStrategy) and not scales_gradients(trainer)


def scales_gradients(trainer: Trainer) -> bool:
    """Whether gradients are scaled, as 16-bit ones are."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def choose_optimizations(
    model: Model, players: Sequence[Player], trainer: Trainer, clip_norm: float | None
) -> list[Optimization]:
    """One for each player: direct where this process trains on one device, through Lightning elsewhere.

    Raises:
        ConfigError: several players, on several devices or with scaled gradients.
    """
    if is_alone(trainer):
        return [DirectOptimization(trainer, place, player, clip_norm) for place, player in enumerate(players)]
    if len(players) > 1:
        raise ConfigError(
            f"trainer: {type(model).__name__} has {len(players)} optimizers and trains on one device, "
            "in 32-true or bf16 precision: trainer=default"
        )
    return [LightningOptimization(model)]


def running_averages(model: nn.Module) -> list[Tensor]:
    """The buffers in which modules keep averages over batches: those of batch normalization, and those that a module
    names in ``running_averages``."""
    found: list[Tensor] = []
    for module in model.modules():
        names = getattr(module, "running_averages", ("running_mean", "running_var"))
        found += [buffer for name, buffer in module.named_buffers(recurse=False) if name in names]
    return found


class LightningOptimization:
    """Lightning's manual optimization; the gradient is clipped in ``on_before_optimizer_step``."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def begin_block(self) -> None:
        self.optimizer: Any = self.model.optimizers()
        self.parameters = parameters_of(self.optimizer)

    def prepare(self) -> None:
        """Nothing to prepare."""

    def backward(self, loss: Tensor) -> None:
        self.model.manual_backward(loss)

    def step(self) -> None:
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def end_block(self, steps: int) -> None:
        """Average the running averages over processes, each of which has seen its own rows; DDP alone would go on with
        those of the first. Lightning has counted the steps itself."""
        if averages := running_averages(self.model):
            mean = self.model.trainer.strategy.reduce(
                torch.cat([each.flatten() for each in averages]), reduce_op="mean"
            )
            for average, value in zip(averages, mean.split([each.numel() for each in averages]), strict=True):
                average.copy_(value.view_as(average))


class DirectOptimization:
    """torch alone: the same arithmetic, bit for bit.

    Args:
        trainer: holds the optimizers and counts the steps.
        place: the player's number among all.
        player: its parameters, and no others, get gradients of its loss.
        clip_norm: largest norm of the gradient; no limit if None.
    """

    def __init__(self, trainer: Trainer, place: int, player: Player, clip_norm: float | None) -> None:
        self.trainer = trainer
        self.place = place
        self.parameters = player.parameters
        self.clip_norm = clip_norm
        self.rates: Sequence[Tensor] | None = None
        """Each group's learning rate on the device, for steps that are recorded: see ``fused_adam.DeviceRates``."""

    @property
    def optimizer(self) -> Optimizer:
        return self.trainer.optimizers[self.place]

    def begin_block(self) -> None:
        self._step: Callable[[], object] | None = None  # made when needed: not where steps are replayed
        # Restricting the backward pass to some parameters costs a second pass over the graph.
        self._inputs = self.parameters if len(self.trainer.optimizers) > 1 else None

    @property
    def is_fused(self) -> bool:
        """Whether torch's kernel is all of the step."""
        return is_all_kernel(self.optimizer)

    def prepare(self) -> None:
        self._made_step()

    def _made_step(self) -> Callable[[], object]:
        if self._step is None:
            self._step = fused_adam_step(self.optimizer, self.rates) or self.optimizer.step
        return self._step

    def backward(self, loss: Tensor) -> None:
        loss.backward(inputs=self._inputs)

    def step(self) -> None:
        self.clip()
        self._made_step()()
        self.clear()

    def clip(self) -> None:
        """Bring the norm of the gradient down to the largest allowed."""
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def end_block(self, steps: int) -> None:
        """Count the steps where Lightning looks for them: ``trainer.global_step`` is one of these."""
        if self.place > 0:
            return  # the step of a minibatch is counted once, however many players took part
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tracker in (progress.total, progress.current):
            tracker.ready += steps
            tracker.completed += steps
