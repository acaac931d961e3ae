"""``pruning.json`` in the directory of a job of a search: the jobs that it is compared with while it trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer

from attelbo.experiments.rundir import RunDirectory
from attelbo.training.callbacks import Pruning

FILE = "pruning.json"


def prepare(run: RunDirectory, search: Mapping[str, Any], others: Sequence[str]) -> None:
    """Record, once, what a job is compared with: the jobs that are finished now, even if it is resumed later.

    Args:
        run: the job's directory.
        search: its record in the ledger.
        others: the names of their directories, in the order of their numbers.
    """
    if run.read(FILE) is None:
        run.write(FILE, {key: search[key] for key in ("metric", "direction", "pruner", "warmup")} | {"others": others})


def watch(trainer: Trainer, run: RunDirectory, step: int) -> None:
    """Add the pruning callback to the run's Trainer if the run has a record of what it is compared with.

    Args:
        trainer: that of the run.
        run: its directory.
        step: the optimizer step that it is resumed from.
    """
    told = run.read(FILE)
    if told is None:
        return
    others = [RunDirectory(run.path.parent / name) for name in told.pop("others")]
    metric = told["metric"]
    curves = [(other.curve(metric), other.status()["state"] == "pruned") for other in others]
    own = run.curve(metric, until=step)
    pruning = Pruning(**told, others=[each for each in curves if each[0]], own=own)
    trainer.callbacks.append(pruning)  # pyright: ignore[reportAttributeAccessIssue]
