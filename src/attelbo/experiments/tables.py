"""The tables that runs print at their end."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from attelbo.experiments.comparison.runs import read_run
from attelbo.experiments.comparison.settings import settings_of
from attelbo.experiments.comparison.statistics import Estimate
from attelbo.experiments.comparison.table import OVER_SEEDS, as_text, by_seed, metrics_of
from attelbo.experiments.numbers import numbers_of, remarks
from attelbo.experiments.terminal import print_whole, terminal

WIDTH = 110
"""A line of the table is not broken, however narrow the terminal."""


def print_result(result: Mapping[str, Any], run_dir: Path, split: str = "test", works: bool = True) -> None:
    """Print the headline numbers of a result, with their units, remarks on them, and the paths of pictures, texts and
    report if these ``works`` were made of the weights that were measured."""
    seconds, numbers = result.get("seconds", {}), list(numbers_of(result, split))
    errors = ", ± standard error" if any(each.error is not None for each in numbers) else ""
    table = Table(title=f"{run_dir}: {split}{errors}", title_justify="left", show_header=False, box=None)
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify)
    for measure, value, error in numbers:
        told = [f"{value:z.{measure.digits}f}", "" if error is None else f"±{error:.{measure.digits}f}"]
        table.add_row(measure.label, *told, f"{measure.unit} ({measure.note})" if measure.note else measure.unit)
    if "checkpoint" in result:
        told = ", ".join(filter(None, ("checkpoint", result.get("monitor"))))
        table.add_row("weights", result["checkpoint"], "", told)
    if result.get("out_of_time"):
        table.add_row("steps", f"{result['steps']:,}", "", "until the time was up, trainer.max_time")
    times = ", ".join(f"{what} {value:.1f} s" for what, value in seconds.items())
    if times:
        table.add_row("time", f"{sum(seconds.values()):.1f}", "", f"s ({times})")
    console = terminal(WIDTH)
    console.print(table)
    for remark in remarks(result, split):
        console.print(f"note: {remark}", markup=False, highlight=False)
    files = list(_files(run_dir)) if works else []
    width = max((len(label) for label, _ in files), default=0) + 1
    for label, path in files:
        console.print(f"{label:>{width}}  {path}")


def _files(run_dir: Path) -> Iterator[tuple[str, Path]]:
    """Pictures, texts and the report. Names with a hyphen are of earlier epochs, or of what commands wrote later."""
    for path in sorted((run_dir / "media").glob("*")):
        if path.suffix in (".png", ".gif", ".txt") and "-" not in path.stem:
            yield path.stem.replace("_", " "), path
    if (run_dir / "report.html").exists():
        yield "report", run_dir / "report.html"


# -- several runs together -----------------------------------------------------------------------------


def print_replicas(runs: Sequence[Path], sweep: Path) -> None:
    """Print the metrics of each setting as the mean over its seeds, with a 95 % interval, and where the runs are.

    Args:
        runs: the directory of each.
        sweep: the directory of them all.
    """
    found = [run for path in runs if (run := read_run(path)) is not None]
    settings = settings_of(found)
    table = Table(title=f"{sweep}: {OVER_SEEDS}", title_justify="left", box=None)
    table.add_column()
    done = [[run for run in setting.runs if run.state == "done"] for setting in settings]
    for setting, runs_of in zip(settings, done, strict=True):
        told = [setting.label] if setting.values else []
        table.add_column(" ".join([*told, f"n={len({run.seed for run in runs_of})}"]), justify="right")
    metrics = metrics_of([run for runs_of in done for run in runs_of])
    for metric in metrics:
        estimates = [Estimate.of(list(values.values())) if (values := by_seed(of, metric.key)) else None for of in done]
        table.add_row(metric.key, *("-" if each is None else as_text(each, metric) for each in estimates))
    console = terminal()
    if metrics:
        print_whole(console, table)
    for run in found:
        why = f": {run.reason}" if run.state == "failed" else ""
        console.print(f"{run.path}  seed {run.seed}  {run.state}{why}")
