"""Where a run continues: its directory, its number of threads, its checkpoint."""

from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer

from attelbo.data import ResidentDataModule
from attelbo.experiments.assembly import Config, check_is_there, parent_of
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import read_config
from attelbo.models import Model, load_weights
from attelbo.training import checkpoint_io_of, refuse_ended, refuse_other_optimizers
from attelbo.training.threads import measured_threads, use_threads


def directory_of(config: Config, sweep: Path | None) -> RunDirectory | None:
    """The run's directory: that of a job, or the one that it had before; None where it gets a new one."""
    if sweep is not None:
        return RunDirectory.job(sweep, config)
    return RunDirectory.latest(parent_of(config), config) if config["ckpt"] == "auto" else None


def with_threads(config: Config, run: RunDirectory, model: Model, data: ResidentDataModule, trainer: Trainer) -> Config:
    """The configuration with a number for ``trainer.threads=auto``, which is used from now on: the one that the run
    had before, since its last digits depend on it, or one that is measured."""
    if config["trainer"]["threads"] != "auto":
        return config
    begun = (run.path / "config.yaml").is_file()
    threads = read_config(run.path)["trainer"]["threads"] if begun else measured_threads(model, data, trainer)
    use_threads(threads)
    return {**config, "trainer": {**config["trainer"], "threads": threads}}


class Start(NamedTuple):
    """Where a run is resumed."""

    checkpoint: Path
    step: int


def take_up(checkpoint: Path | None, model: Model, trainer: Trainer, planned: int | None = None) -> Start | None:
    """Read a checkpoint, check that it fits the model, and keep it for the Trainer, which will load it.

    For another run's checkpoint ``planned`` is the number of this run's steps, of which some must be left.
    """
    if checkpoint is None:
        return None
    check_is_there(checkpoint)
    content = load_weights(model, checkpoint)
    if planned is not None:
        refuse_ended(trainer, planned, checkpoint, content)
        refuse_other_optimizers(model, checkpoint, content)
    checkpoint_io_of(trainer).hand_over(checkpoint, content)
    return Start(checkpoint, content["global_step"])
