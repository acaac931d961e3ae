"""Where a run's numbers and pictures go: metrics.csv always, TensorBoard and W&B on request.

Everything stays inside the run directory, and W&B is offline unless asked otherwise. A logger's node in
``conf/logger`` names one of the classes below; what belongs to the run (directory, name, tags,
configuration) is given by `build_loggers`.
"""

import csv
import io
import os
import re
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from attelbo.building import Spec, build
from attelbo.files import read_rows, write_atomically
from attelbo.training.media import Work

METRICS_FILE = "metrics.csv"
METRICS_COLUMNS = ("step", "epoch", "metric", "value")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What every logger may know about the run that it serves."""

    directory: Path
    name: str
    run_id: str
    """Stays the same when the run is resumed."""
    group: str
    """Runs that belong together: the sweep's id."""
    job_type: str
    """"train", "evaluate", ..."""
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    """The resolved configuration, plain containers."""


def build_loggers(
    nodes: Mapping[str, Spec],
    *,
    run_dir: Path,
    name: str,
    group: str,
    job_type: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    run_id: str | None = None,
) -> list[Logger]:
    """The loggers of a run, from the nodes of ``conf/logger``.

    metrics.csv is written whenever anything is logged at all: only ``logger=none``, an empty mapping, is silent.

    Args:
        nodes: Name -> node; each node's ``_target_`` takes ``run`` and the node's own keys.
        run_dir: The run directory. Nothing is written outside it.
        name: The run's name on a dashboard.
        group: Runs with the same group are shown together.
        job_type: "train", "evaluate", ...
        tags: Short labels, such as the git version.
        config: The resolved configuration, plain containers.
        run_id: The same id resumes the same W&B run; by default it names the run directory and its parent,
            since equal jobs of two sweeps have directories of the same name.
    """
    if run_id is None:
        run_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"{run_dir.parent.name}-{run_dir.name}")
    run = RunInfo(run_dir, name, run_id, group, job_type, tuple(tags), config)
    loggers: list[Logger] = [build(node, run=run) for node in nodes.values()]
    if loggers and not any(isinstance(logger, CsvLogger) for logger in loggers):
        loggers.insert(0, CsvLogger(run))
    return loggers


def finish_loggers(loggers: Iterable[Logger], exit_code: int) -> None:
    """Close every logger; to be called in a ``finally``, with what the process will exit with.

    A logger that fails to close does not keep the others from it. Without this the next job of the
    same process would go on writing into this W&B run, and a failed run would be shown as finished.
    """
    with ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.finalize, "success" if exit_code == 0 else "failed")
            if isinstance(logger, WeightsAndBiases):
                stack.callback(logger.finish, exit_code)


def rewind_loggers(loggers: Iterable[Logger], step: int) -> None:
    """Forget what an interrupted run logged after the checkpoint at ``step`` from which it now goes on."""
    for logger in loggers:
        if isinstance(logger, CsvLogger):
            logger.rewind(step)


def log_work(loggers: Iterable[Logger], key: str, work: Work, step: int) -> None:
    """Show a picture or a text in every logger that can show them."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            if isinstance(work, str):
                indented = textwrap.indent(work, "    ", lambda line: True)  # in Markdown: as it stands
                logger.experiment.add_text(key, indented, step)
            else:
                logger.experiment.add_image(key, work, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            if isinstance(work, str):
                logger.log_text(key, columns=["text"], data=[[work]], step=step)
            else:
                logger.log_image(key, [work], step=step)


class CsvLogger(Logger):
    """metrics.csv in the run directory: one line for each value, ``step,epoch,metric,value``.

    Lightning's CSVLogger rewrites the file when a new metric appears and refuses a directory with
    files in it. One value per line can only grow at its end: new metrics need no new column, a killed process
    loses at most the line it was writing, and a resumed run goes on in the same file. In pandas::

        pandas.read_csv("metrics.csv").pivot(index="step", columns="metric", values="value")
    """

    def __init__(self, run: RunInfo) -> None:
        super().__init__()
        self.path = run.directory / METRICS_FILE
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        epoch = int(metrics["epoch"]) if "epoch" in metrics else ""
        at = "" if step is None else step
        values = {metric: float(value) for metric, value in metrics.items() if metric != "epoch"}
        file = self._file or self._open()
        file.write(_lines((at, epoch, metric, value) for metric, value in values.items()))
        # Handed to the operating system at once: a killed process loses nothing that was logged.
        file.flush()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory holds config.yaml."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop every line later than ``step``; atomically."""
        self._close()
        if not self.path.exists():
            return
        kept = [row for row in read_rows(self.path) if not row["step"] or int(row["step"]) <= step]
        write_atomically(self.path, _lines([METRICS_COLUMNS, *(row.values() for row in kept)]))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_unfinished_line(self.path)
        self._file = self.path.open("a", newline="", encoding="utf-8")
        if self._file.tell() == 0:
            self._file.write(_lines([METRICS_COLUMNS]))
        return self._file


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _cut_unfinished_line(path: Path) -> None:
    """Remove what a killed process left behind the last line end."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


class TensorBoard(TensorBoardLogger):
    """TensorBoard event files in ``<run directory>/tensorboard``."""

    def __init__(self, run: RunInfo) -> None:
        super().__init__(save_dir=run.directory, name="", version="tensorboard", default_hp_metric=False)


class WeightsAndBiases(WandbLogger):
    """Weights & Biases, offline by default; ``wandb sync <run directory>/wandb/offline-run-*`` sends it later.

    Args:
        run: The run that is logged.
        project: The project on the server.
        entity: User or team; None is the one that is logged in.
        mode: "offline" writes to the run directory only; "online" needs a server (one that cannot be
            reached costs the whole ``init_timeout``); "disabled" does nothing.
    """

    def __init__(
        self,
        run: RunInfo,
        project: str = "attelbo",
        entity: str | None = None,
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        self._folder = run.directory / "wandb"
        # Lightning's own `offline=True` sets WANDB_MODE for the whole process, hence for later jobs: not used.
        super().__init__(
            name=run.name,
            save_dir=str(run.directory),
            version=run.run_id,
            project=project,
            entity=entity,
            mode=mode,
            group=run.group,
            job_type=run.job_type,
            tags=list(run.tags),
            config=dict(run.config),
        )
        del self._wandb_init["anonymous"]  # Lightning gives it always, wandb warns that it is of no use

    @property
    def experiment(self) -> Any:
        """The wandb run; started by the first use, on rank 0."""
        if self._experiment is None and _on_rank_zero():
            self._start()
        return super().experiment

    def _start(self) -> None:
        # Before wandb is imported: it reads some of these then, the others when a run starts.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        for purpose in ("data", "cache", "config"):
            folder = self._folder / purpose
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[f"WANDB_{purpose.upper()}_DIR"] = str(folder)
        import wandb

        # The progress bar would otherwise be copied to output.log at every refresh.
        self._wandb_init["settings"] = wandb.Settings(
            console="off",
            silent=self._wandb_init["mode"] != "online",
            reinit="create_new",  # replicas share a process, and each has a run of its own
        )
        if self._wandb_init["mode"] != "online":
            self._wandb_init["resume"] = None  # offline, the same id is enough, and "allow" only warns

    def finish(self, exit_code: int) -> None:
        """End the wandb run with the exit code of the process; a later use would start it anew."""
        if self._experiment is not None and _on_rank_zero():
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def _on_rank_zero() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0
