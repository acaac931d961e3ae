"""What a run prints at its end."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from attelbo.experiments.rundir import RunDirectory, config_hash
from attelbo.metrics import Measure

WIDTH = 110
"""A line of the table is not broken, however narrow the terminal."""


class Measured(NamedTuple):
    """A number in a result, and how it is shown."""

    measure: Measure
    value: float
    error: float | None
    """Its standard error, where one is known."""


def measured(result: Mapping[str, Any], split: str) -> Iterator[Measured]:
    """The numbers of a result that are shown, in their order."""
    metrics = result.get("metrics", {})
    for measure in itertools.starmap(Measure, result.get("measures", ())):
        key = f"{split}/{measure.key}"
        if key in metrics:
            error = metrics.get(f"{key}_std_error", math.nan)
            yield Measured(measure, metrics[key], error if math.isfinite(error) else None)


def print_result(result: Mapping[str, Any], run_dir: Path, split: str = "test") -> None:
    """The headline numbers of a result, with their units, and where pictures and texts are."""
    seconds = result.get("seconds", {})
    table = Table(title=f"{run_dir}: {split}", title_justify="left", show_header=False, box=None)
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify)
    for measure, value, error in measured(result, split):
        numbers = [f"{value:.{measure.digits}f}", "" if error is None else f"±{error:.{measure.digits}f}"]
        table.add_row(measure.label, *numbers, f"{measure.unit} ({measure.note})" if measure.note else measure.unit)
    if chosen := result.get("monitor"):
        table.add_row("weights", result["checkpoint"], "", f"checkpoint, {chosen}")
    times = ", ".join(f"{what} {value:.1f} s" for what, value in seconds.items())
    if times:
        table.add_row("time", f"{sum(seconds.values()):.1f}", "", f"s ({times})")
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, WIDTH)
    console.print(table)
    for label, path in _files(run_dir):
        console.print(f"{label:>16}  {path}", highlight=False)


def _files(run_dir: Path) -> Iterator[tuple[str, Path]]:
    """What there is to look at. Names with a hyphen are those of earlier epochs, and of what commands wrote later."""
    for path in sorted((run_dir / "media").glob("*")):
        if path.suffix in (".png", ".txt") and "-" not in path.stem:
            yield path.stem.replace("_", " "), path
    if (run_dir / "report.html").exists():
        yield "report", run_dir / "report.html"


# -- several runs together -----------------------------------------------------------------------------


def print_replicas(runs: Sequence[tuple[Mapping[str, Any], RunDirectory]], sweep: Path) -> None:
    """The metrics of each configuration as the mean over its seeds, with a 95 % interval, and where the runs are.

    Args:
        runs: configuration and directory of each.
        sweep: the directory of them all.
    """
    cells: dict[str, list[tuple[Mapping[str, Any], RunDirectory]]] = {}
    for config, run in runs:
        without_seed = {**config, "seed": None, "data": {**config["data"], "seed": None}}
        cells.setdefault(config_hash(without_seed), []).append((config, run))
    firsts = [members[0][0] for members in cells.values()]
    results = [[result for _, run in members if (result := _result(run))] for members in cells.values()]
    table = Table(title=f"{sweep}: mean ± 95 % interval over seeds", title_justify="left", box=None)
    table.add_column()
    for first, of_cell in zip(firsts, results, strict=True):
        table.add_column(" ".join([*_differences(first, firsts), f"n={len(of_cell)}"]), justify="right")
    metrics = [[result["metrics"] for result in of_cell] for of_cell in results]
    names = dict.fromkeys(name for of_cell in metrics for one in of_cell for name in one)
    for name in names:
        if not name.endswith("_std_error"):  # of one run's images, not of runs
            table.add_row(name, *(interval([one[name] for one in of_cell if name in one]) for of_cell in metrics))
    console = Console(soft_wrap=True, force_jupyter=False)
    if names:
        console.print(table)
    for config, run in runs:
        state = run.status()["state"]
        why = f": {run.status().get('error', '').strip().rpartition(chr(10))[2]}" if state == "failed" else ""
        console.print(f"{run.path}  seed {config['seed']}  {state}{why}", highlight=False, markup=False)


def _result(run: RunDirectory) -> dict[str, Any] | None:
    return run.read("result.json") if run.status()["state"] == "done" else None


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of the 95 % interval, by Student's t with n - 1 degrees of freedom."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.975) * statistics.stdev(values) / math.sqrt(len(values))
    digits = max(2, 1 - math.floor(math.log10(half))) if 0 < half < 1 else 2
    return f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}"


def _differences(config: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys, with their values, in which a configuration differs from some of the others; seeds left out."""
    flat = [_flatten(other) for other in others]
    own = _flatten(config)
    return [f"{key}={value}" for key, value in own.items() if any(other.get(key) != value for other in flat)]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif key != "seed":
            flat[f"{prefix}{key}"] = value
    return flat
