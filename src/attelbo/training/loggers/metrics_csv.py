"""metrics.csv: every number of a run, one line for each."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from attelbo.files import METRICS_FILE, Row, csv_text, read_rows, write_atomically
from attelbo.training.loggers.base import RunInfo

METRICS_COLUMNS = Row._fields


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
        file.write(csv_text((at, epoch, metric, value) for metric, value in values.items()))
        # Handed to the operating system at once: a killed process loses nothing that was logged.
        file.flush()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run directory holds config.yaml."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop every line later than ``step``, and the final results, which follow all training; atomically."""
        self._close()
        if not self.path.exists():
            return
        rows = (row for row in read_rows(self.path) if row.step is None or row.step <= step)
        kept = [row for row in rows if not row.metric.startswith("test/")]
        write_atomically(self.path, csv_text([METRICS_COLUMNS, *kept]))

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
            self._file.write(csv_text([METRICS_COLUMNS]))
        return self._file


def _cut_unfinished_line(path: Path) -> None:
    """Remove an incomplete last line, which a killed process may have left."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
