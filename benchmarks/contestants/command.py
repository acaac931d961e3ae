"""attelbo by its own command: ``attelbo train experiment=mnist/vae_mlp ...`` with everything that is on by default.

Progress bar, metrics.csv, learning rate, NaN guard, validation and both checkpoints are as a user has them; the
only stranger is a callback that holds the watch.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo import cli
from attelbo.training.callbacks.base import stepper_of
from benchmarks.task import Task
from benchmarks.turns import Lap, Span, Track, arguments


class Watch(Callback):
    """Takes the time of each epoch, and sleeps between two of them until it is our turn."""

    def __init__(self, track: Track, output_dir: Path) -> None:
        self.track = track
        self.output_dir = output_dir

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (provenance,) = self.output_dir.rglob("provenance.json")
        self.track.ready({"threads": torch.get_num_threads(), "provenance": provenance.read_text(encoding="utf-8")})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > 0:
            self._report(trainer)
        self.track.wait()
        self.rows = stepper_of(pl_module).rows_seen
        self.start = Span.now()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train = Span.now() - self.start
        self.rows = stepper_of(pl_module).rows_seen - self.rows

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer)
        self.track.wait()

    def _report(self, trainer: Trainer) -> None:
        whole = Span.now() - self.start
        self.track.report(Lap(self.rows, self.train, whole, float(trainer.callback_metrics["val/elbo"])))


def words(task: Task, output_dir: Path) -> list[str]:
    """The command line for a task."""
    hidden = "[" + ",".join(map(str, task.hidden)) + "]"
    return [
        "train",
        "experiment=mnist/vae_mlp",
        "trainer=cpu",
        f"trainer.max_epochs={task.laps}",
        f"trainer.threads={'null' if task.threads is None else task.threads}",
        f"paths.data_dir={task.data_dir}",
        f"paths.output_dir={output_dir}",
        f"data.batch_size={task.batch_size}",
        f"data.eval_batch_size={task.eval_batch_size}",
        f"data.validation_size={task.validation_size}",
        f"data.train_size={task.train_size}",
        f"model.latent_dim={task.latent_dim}",
        *(f"model.{part}.hidden={hidden}" for part in ("encoder", "decoder")),
        *(f"model.{part}.activation={task.activation}" for part in ("encoder", "decoder")),
        f"optimizer.lr={task.lr}",
        "scheduler=constant",
        "evaluation.n_images=100",  # after the last lap: nobody is waiting for it
        "evaluation.n_samples=1",
    ]


def main() -> int:
    track, text = arguments(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(track, Path(folder))
        fit = Trainer.fit

        def fit_by_the_watch(trainer: Trainer, *positional: Any, **named: Any) -> None:
            trainer.callbacks.append(watch)  # pyright: ignore[reportAttributeAccessIssue]
            fit(trainer, *positional, **named)

        Trainer.fit = fit_by_the_watch  # pyright: ignore[reportAttributeAccessIssue]
        return cli.main(words(Task.from_json(text), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
