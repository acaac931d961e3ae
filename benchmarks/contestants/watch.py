"""The watch of those who train by Lightning: a callback, the last in the list."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.contestants.networks import gpu_memory, now
from benchmarks.task import OnDevice
from benchmarks.turns import Lap, Track


class Watch(Callback):
    """Takes the time of each epoch, and sleeps between two of them until it is our turn.

    Args:
        task: what is done.
        track: to the referee.
        rows_seen: rows trained on so far, from the module.
        about: what the referee is told besides the number of threads, asked for when the training starts.
    """

    def __init__(
        self,
        task: OnDevice,
        track: Track,
        rows_seen: Callable[[LightningModule], int],
        about: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.task = task
        self.track = track
        self.rows_seen = rows_seen
        self.about = about

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.track.ready({"threads": torch.get_num_threads(), **self.about()})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > 0:
            self._report(trainer)
        self.track.wait()
        self.rows = self.rows_seen(pl_module)
        self.start = now(self.task)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:  # Lightning's trial before the first epoch
            return
        self.train = now(self.task) - self.start
        self.rows = self.rows_seen(pl_module) - self.rows

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics  # attelbo forgets them when the next epoch begins
        self.validation = metrics["val/elbo"] if "val/elbo" in metrics else -metrics["val/loss"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)
        self.track.wait()

    def _report(self, trainer: Trainer) -> None:
        whole = now(self.task) - self.start
        self.track.report(Lap(self.rows, self.train, whole, float(self.validation), gpu_memory(self.task)))


@contextmanager
def joined(callback: Callback) -> Iterator[None]:
    """Whatever is trained inside, by a command that knows nothing of it, has this callback too, as the last."""
    fit = Trainer.fit

    def fit_with_it(trainer: Trainer, *positional: Any, **named: Any) -> None:
        trainer.callbacks.append(callback)  # pyright: ignore[reportAttributeAccessIssue]
        fit(trainer, *positional, **named)

    Trainer.fit = fit_with_it  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        Trainer.fit = fit
