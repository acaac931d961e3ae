"""What the callbacks read from the stepper that trains a module.

Shapes: S optimizer steps in a block, T terms.
"""

from typing import Any, Protocol, cast

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attelbo.errors import ConfigError, did_you_mean, nearest
from attelbo.models.base import Monitor


class StepperState(Protocol):
    """The part of a module's ``stepper`` that is open to callbacks; tensors are on the training device."""

    step: int
    """Optimizer steps taken so far."""
    total_steps: int
    """Optimizer steps of the whole training."""
    rows_seen: int
    """Rows trained on so far, by all devices together."""
    row_tokens: int | None
    """The tokens of a row, where all rows have as many."""
    log_every_n_steps: int
    """Optimizer steps between two lines to the loggers."""
    terms: tuple[str, ...]
    """The names of the T terms, such as "loss", "elbo", "reconstruction", "kl"."""
    block_values: Tensor
    """Each term at each optimizer step of the last block, (S, T), nats."""

    def latest(self) -> dict[str, Tensor]:
        """Each term's mean over the last block; empty before the first."""
        ...


def stepper_of(module: LightningModule) -> StepperState:
    """The stepper that trains the module."""
    return cast(Any, module).stepper


def monitor_of(module: LightningModule) -> Monitor | None:
    """The validation metric that decides which epoch is the best, and whether more of it is better."""
    return cast(Any, module).monitor


def is_known(monitor: str, trainer: Trainer, key: str) -> bool:
    """Whether there is a value of this metric at the end of an epoch; there is none before the first validation.

    Args:
        monitor: the metric's name.
        trainer: the Trainer.
        key: the key in the configuration that names the metric.

    Raises:
        ConfigError: there was a validation without it, so it will never come.
    """
    metrics = trainer.callback_metrics
    if monitor in metrics:
        return True
    if not any(name.startswith("val/") for name in metrics):
        return False
    guess = did_you_mean(nearest(monitor, metrics))
    raise ConfigError(f"{key}={monitor}: no such metric{guess} (there are {', '.join(metrics)})")
