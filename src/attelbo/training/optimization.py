"""Backward pass and optimizer step, by Lightning's way or, where that adds nothing, past it.

Lightning's wrappers serve replicas, gradient scalers and sharded parameters; on one device in plain precision
they cost 0.2 ms a step, and torch's own bookkeeping around its fused Adam kernel as much again. That is an
eighth of the step of a small VAE, for which nothing is computed.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, AdamW, Optimizer

from attelbo.models import Model


class Optimization(Protocol):
    """How a loss becomes a step of the model's one optimizer."""

    def begin_block(self) -> None:
        """Called before the first step of a block."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient to the parameters'."""

    def step(self) -> None:
        """Take an optimizer step, then clear the gradients."""

    def end_block(self, steps: int) -> None:
        """Called after the last of ``steps`` steps."""


def choose_optimization(model: Model, trainer: Trainer, clip_norm: float | None) -> Optimization:
    """Past Lightning on one device and without a gradient scaler, by its way elsewhere."""
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    alone = isinstance(trainer.strategy, SingleDeviceStrategy)
    return DirectOptimization(model, trainer, clip_norm) if alone and not scaled else LightningOptimization(model)


class LightningOptimization:
    """Manual optimization as Lightning means it; the gradient is clipped in ``on_before_optimizer_step``."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def begin_block(self) -> None:
        self.optimizer: Any = self.model.optimizers()
        self.parameters = parameters_of(self.optimizer)

    def backward(self, loss: Tensor) -> None:
        self.model.manual_backward(loss)

    def step(self) -> None:
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def end_block(self, steps: int) -> None:
        """Lightning has counted the steps itself."""


class DirectOptimization:
    """torch alone: the same arithmetic, bit for bit."""

    def __init__(self, model: Model, trainer: Trainer, clip_norm: float | None) -> None:
        self.model = model
        self.trainer = trainer
        self.clip_norm = clip_norm

    def begin_block(self) -> None:
        optimizer: Any = self.model.optimizers(use_pl_optimizer=False)
        self.parameters = parameters_of(optimizer)
        self._step = fused_adam_step(optimizer) or optimizer.step

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        self._step()
        for parameter in self.parameters:
            parameter.grad = None

    def end_block(self, steps: int) -> None:
        """Count the steps where Lightning looks for them: ``trainer.global_step`` is one of these."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tracker in (progress.total, progress.current):
            tracker.ready += steps
            tracker.completed += steps


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def fused_adam_step(optimizer: Optimizer) -> Callable[[], None] | None:
    """A step of a fused Adam or AdamW that calls torch's kernel on the optimizer's own state.

    None where that is not all of the step: another optimizer, a flag that is not covered here, hooks, a parameter
    without state, because it took no part in the loss or because no step was taken yet. Good until the
    state is replaced.
    """
    if type(optimizer) not in (Adam, AdamW) or not all(_plain(group) for group in optimizer.param_groups):
        return None
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return None
    if not all(optimizer.state.get(parameter) for parameter in parameters_of(optimizer)):
        return None
    steps = [_fused_group_step(optimizer, group) for group in optimizer.param_groups]

    def step() -> None:
        for group_step in steps:
            group_step()

    return step


def _plain(group: dict[str, Any]) -> bool:
    unusual = group["amsgrad"] or group["capturable"] or group["differentiable"] or isinstance(group["lr"], Tensor)
    one_kind = len({(parameter.device, parameter.dtype) for parameter in group["params"]}) == 1
    return bool(group["fused"]) and not unusual and one_kind


def _fused_group_step(optimizer: Optimizer, group: dict[str, Any]) -> Callable[[], None]:
    parameters: list[Tensor] = group["params"]
    states = [optimizer.state[parameter] for parameter in parameters]
    averages = [state["exp_avg"] for state in states]
    averages_of_squares = [state["exp_avg_sq"] for state in states]
    counts = [state["step"] for state in states]
    # The kernels that torch.optim.Adam itself calls; torch has no public name for them.
    private: Any = torch
    kernel = private._fused_adamw_ if group["decoupled_weight_decay"] else private._fused_adam_
    beta1, beta2 = group["betas"]

    def step() -> None:
        gradients = [parameter.grad for parameter in parameters]
        with torch.no_grad():
            private._foreach_add_(counts, 1)
            kernel(
                parameters,
                gradients,
                averages,
                averages_of_squares,
                [],
                counts,
                lr=group["lr"],  # read at every step: schedulers write it
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
                grad_scale=None,
                found_inf=None,
            )

    return step
