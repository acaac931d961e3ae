"""Backward pass and optimizer step, by Lightning's way or, where that adds nothing, past it.

Lightning's wrappers serve replicas, gradient scalers and sharded parameters; on one device in plain precision
they cost 0.2 ms a step, and torch's own bookkeeping around its fused Adam kernel as much again. That is an
eighth of the step of a small VAE, for which nothing is computed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, AdamW, Optimizer

from attelbo.errors import ConfigError
from attelbo.models import Model, Player


class Optimization(Protocol):
    """How a loss becomes a step of one player's optimizer."""

    def begin_block(self) -> None:
        """Called before the first step of a block."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient to the parameters'."""

    def step(self) -> None:
        """Take an optimizer step, then clear the gradients."""

    def end_block(self, steps: int) -> None:
        """Called after the last of ``steps`` steps."""


def is_alone(trainer: Trainer) -> bool:
    """Whether this process trains on one device, without a gradient scaler: nothing of Lightning's is needed."""
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    return isinstance(trainer.strategy, SingleDeviceStrategy) and not scaled


def choose_optimizations(
    model: Model, players: Sequence[Player], trainer: Trainer, clip_norm: float | None
) -> list[Optimization]:
    """For each player: past Lightning where this process is alone with one device, by Lightning's way elsewhere.

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
    """torch alone: the same arithmetic, bit for bit.

    Args:
        trainer: holds the optimizers and counts the steps.
        place: of the player among all.
        player: its parameters, and no others, get gradients of its loss.
        clip_norm: largest norm of the gradient; no limit if None.
    """

    def __init__(self, trainer: Trainer, place: int, player: Player, clip_norm: float | None) -> None:
        self.trainer = trainer
        self.place = place
        self.parameters = player.parameters
        self.clip_norm = clip_norm
        self.rates: Sequence[Tensor] | None = None
        """Each group's learning rate on the device, for steps that are recorded (:class:`DeviceRates`)."""

    @property
    def optimizer(self) -> Optimizer:
        return self.trainer.optimizers[self.place]

    def begin_block(self) -> None:
        fused = fused_adam_step(self.optimizer, self.rates)
        self.is_fused = fused is not None
        self._step = fused or self.optimizer.step
        # To leave out what is not a player's own takes a second pass over the graph: only where there are others.
        self._inputs = self.parameters if len(self.trainer.optimizers) > 1 else None

    def backward(self, loss: Tensor) -> None:
        loss.backward(inputs=self._inputs)

    def step(self) -> None:
        self.clip()
        self._step()
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


class DeviceRates:
    """Learning rates on the device: a recorded step would else keep the numbers that it was recorded with."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._values = torch.zeros(len(self._groups), device=self._groups[0]["params"][0].device)
        self._written: list[float] = []
        places = iter(self._values.unbind())
        self.of: list[list[Tensor]] = [[next(places) for _ in optimizer.param_groups] for optimizer in optimizers]
        """Of each optimizer's groups, scalars."""

    def write(self) -> None:
        """Bring them to what the groups say."""
        rates = [group["lr"] for group in self._groups]
        if rates == self._written:
            return
        if len(set(rates)) == 1:
            self._values.fill_(rates[0])  # no copy from the host
        else:
            self._values.copy_(torch.tensor(rates), non_blocking=True)
        self._written = rates


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def fused_adam_step(optimizer: Optimizer, rates: Sequence[Tensor] | None = None) -> Callable[[], None] | None:
    """A step of a fused Adam or AdamW that calls torch's kernel on the optimizer's own state.

    None where that is not all of the step: another optimizer, a flag that is not covered here, hooks, a parameter
    without state, because it took no part in the loss or because no step was taken yet. Good until the
    state is replaced.

    Args:
        optimizer: whose step it is.
        rates: the learning rate of each group, on the device; None: what the group says at each step.
    """
    if not _is_all_kernel(optimizer):
        return None
    each = zip(optimizer.param_groups, rates or [None] * len(optimizer.param_groups), strict=True)
    return _one_after_the_other([_fused_group_step([optimizer], [group], rate) for group, rate in each])


def joint_adam_step(
    optimizers: Sequence[Optimizer], rates: Sequence[Sequence[Tensor]] | None = None
) -> Callable[[], None] | None:
    """A step of several fused Adams, those of replicas: one kernel for all if they have the same learning rate now.

    None where they differ in anything but parameters and learning rate, or where ``fused_adam_step`` is None.

    Args:
        optimizers: whose step it is.
        rates: the learning rate of each group of each, on the device; None: what the groups say at each step.
    """
    if not all(_is_all_kernel(optimizer) for optimizer in optimizers):
        return None
    steps: list[Callable[[], None]] = []
    for place, groups in enumerate(zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)):
        if any(_settings(group) != _settings(groups[0]) for group in groups):
            return None
        own_rates = [own[place] for own in rates] if rates is not None else [None] * len(groups)
        together = _fused_group_step(optimizers, groups, own_rates[0])
        each = zip(optimizers, groups, own_rates, strict=True)
        alone = [_fused_group_step([own], [group], rate) for own, group, rate in each]
        steps.append(_by_rates(groups, together, _one_after_the_other(alone)))
    return _one_after_the_other(steps)


def rates_agree(optimizers: Sequence[Optimizer]) -> tuple[bool, ...]:
    """For each group, whether its learning rate is now the same in all optimizers."""
    return tuple(map(_agree, zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)))


def _agree(groups: Sequence[dict[str, Any]]) -> bool:
    return all(group["lr"] == groups[0]["lr"] for group in groups)


def _is_all_kernel(optimizer: Optimizer) -> bool:
    """Whether torch's kernel, called on the optimizer's state, is all of its step."""
    return (
        type(optimizer) in (Adam, AdamW)
        and all(_plain(group) for group in optimizer.param_groups)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and all(optimizer.state.get(parameter) for parameter in parameters_of(optimizer))
    )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "lr", "initial_lr")}


def _by_rates(
    groups: Sequence[dict[str, Any]], equal: Callable[[], None], different: Callable[[], None]
) -> Callable[[], None]:
    def step() -> None:
        if _agree(groups):
            equal()
        else:
            different()

    return step


def _one_after_the_other(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def step() -> None:
        for each in steps:
            each()

    return step


def _plain(group: dict[str, Any]) -> bool:
    unusual = group["amsgrad"] or group["capturable"] or group["differentiable"] or isinstance(group["lr"], Tensor)
    one_kind = len({(parameter.device, parameter.dtype) for parameter in group["params"]}) == 1
    return bool(group["fused"]) and not unusual and one_kind


def _fused_group_step(
    optimizers: Sequence[Optimizer], groups: Sequence[dict[str, Any]], rate: Tensor | None
) -> Callable[[], None]:
    """A group of parameters, or groups of equal settings, one of each optimizer."""
    group = groups[0]
    parameters: list[Tensor] = [parameter for each in groups for parameter in each["params"]]
    states = [own.state[p] for own, each in zip(optimizers, groups, strict=True) for p in each["params"]]
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
                lr=group["lr"] if rate is None else rate,  # read at every step: schedules write it
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
