"""Early stopping by the metric that the model itself names."""

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from attelbo.checks import check_at_least, check_not_negative
from attelbo.errors import ConfigError
from attelbo.models.base import Monitor
from attelbo.training.callbacks.base import is_known, monitor_of


class EarlyStopping(LightningEarlyStopping):
    """Stops the training when a validation metric has not improved for a while.

    Args:
        monitor: The metric; auto: the one that the model names.
        mode: Whether more is better, "max", or less, "min"; with auto, the model says that too.
        patience: Validations in a row without a better value before training stops; it stops at once where the value
            is NaN or infinite.
        min_delta: By how much a value must be better.

    Raises:
        ValueError: the patience is negative, or min_delta negative or not finite.
        ConfigError: after a validation, if there is no such metric.
    """

    def __init__(
        self,
        monitor: str = "auto",
        mode: Literal["min", "max"] = "max",
        patience: int = 10,
        min_delta: float = 0.0,
    ) -> None:
        check_at_least(0, patience=patience)
        check_not_negative(min_delta=min_delta)
        # strict: a training may end before its first validation.
        super().__init__(monitor, min_delta=min_delta, patience=patience, mode=mode, strict=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's checkpoints do not say whether it has stopped: a run killed after that would train on.
        if self.has_stopped:
            trainer.should_stop = True

    @property
    def has_stopped(self) -> bool:
        """Whether it has stopped the training: it was patient for long enough, or the metric was not finite."""
        return self.wait_count >= max(self.patience, 1) or self.saw_non_finite

    @property
    def saw_non_finite(self) -> bool:
        """Whether it has stopped the training because the metric was NaN or infinite."""
        return self.stopping_reason is EarlyStoppingReason.NON_FINITE_METRIC

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})  # the configuration's, not the checkpoint's

    def check_monitor(self, module: LightningModule) -> Monitor | None:
        """The model's monitor, where this one's is auto.

        Raises:
            ConfigError: it names nothing.
        """
        if self.monitor != "auto":
            return None
        monitor = monitor_of(module)
        if monitor is None:
            raise ConfigError(
                f"callbacks: no metric tells when {type(module).__name__} with this objective is at its best: name "
                "one in callbacks.early_stopping.monitor, or leave early stopping out (callbacks=default)"
            )
        return monitor

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the model what to monitor.

        Raises:
            ConfigError: it names nothing.
        """
        super().setup(trainer, pl_module, stage)
        monitor = self.check_monitor(pl_module)
        if monitor is None:
            return
        self.monitor, self.mode = monitor
        self.min_delta = abs(self.min_delta) if self.mode == "max" else -abs(self.min_delta)
        self.best_score = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_known(self.monitor, trainer, "callbacks.early_stopping.monitor")
        super().on_train_epoch_end(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return "EarlyStopping"
