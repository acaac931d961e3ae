"""Stopping in good order: a signal ends the current block, saves a checkpoint and stops the training.

Lightning's own handling of SIGTERM exits with 0 and saves nothing. Here SIGTERM (and the SIGUSR2 that a
cluster sends before its time limit, and Ctrl-C) lead to ``checkpoints/last.ckpt`` and the usual exit code
128 + signal; ``ckpt=auto`` goes on from there, bit for bit.
"""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Interruption(Callback):
    """Remembers the first signal and acts on it at the end of the block; a second one acts at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that stopped the training, on this or another rank; None if it ran to its end."""
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier: Lightning installs its own handlers when fit() begins.
        self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
