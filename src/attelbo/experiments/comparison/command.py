"""``attelbo compare``: any set of runs, offline."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attelbo.errors import UserError
from attelbo.experiments.comparison.runs import Run, find_runs, other_rows
from attelbo.experiments.comparison.settings import settings_of
from attelbo.experiments.comparison.table import (
    UDR,
    Comparison,
    as_csv,
    as_latex,
    as_markdown,
    as_rich,
    chosen,
    conditions,
    metrics_of,
    runs_as_csv,
)
from attelbo.files import why_not_written, write_atomically

if TYPE_CHECKING:
    from attelbo.metrics import Similarity

FORMS = {".csv": as_csv, ".md": as_markdown, ".tex": as_latex}


def compare(
    patterns: Sequence[str],
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    outputs: Sequence[Path] = (),
    pair: tuple[int, int] | None = None,
    each_run: bool = False,
    udr: "Similarity | None" = None,
) -> None:
    """Print the table of all runs found, by setting; write it to files.

    Args:
        patterns: folders, or globs of folders.
        by: keys that tell settings apart; those that differ if empty.
        metrics: columns; the first few that the runs have if empty.
        outputs: files, whose form follows from their suffix: .html, .csv, .md, .tex.
        pair: the numbers, in the printed table, of two settings to be compared seed by seed; by default the two if
            there are just two.
        each_run: a line for each run in the .csv files, instead of one for each setting.
        udr: adds a column of how far the seeds of a setting agree in their latents, by this similarity of two latents.

    Raises:
        UserError: no runs, no run that is done, no such key, metric, setting or form of file, or it cannot be written.
    """
    for path in outputs:
        if path.suffix not in (*FORMS, ".html"):
            raise UserError(f"--output {path}: its form must be one of .html, {', '.join(FORMS)}")
        if why := why_not_written(path):
            raise UserError(f"--output {path} cannot be written: {why}")
    if each_run and not any(path.suffix == ".csv" for path in outputs):
        raise UserError("--runs: a line for each run is for a file; add --output FILE.csv")
    found = find_runs(patterns)
    if not found.done:
        raise UserError(f"none of the {len(found.unfinished)} runs there is done")
    settings = settings_of(found.done, by)
    notes = [] if udr is None else _agree(found.done, udr)
    every = metrics_of(found.done)
    columns, agreement = chosen(every, metrics), [] if udr is None else chosen(every, ["udr"])
    # The first column sorts: one that was asked for by name, or else UDR.
    columns = list(dict.fromkeys([*columns, *agreement] if metrics else [*agreement, *columns]))
    comparison = Comparison(settings, columns, every, found, notes)
    if comparison.brief:
        notes.append(
            f"{len(comparison.keys)} keys differ: of each setting only what tells it from most others is shown; "
            "--by KEY names columns, a .csv has them all"
        )
    notes += [*conditions(settings, columns), *other_rows(found.done)]
    if others := sum(run.evaluates_others for run in found.done):
        runs = "1 run" if others == 1 else f"{others} runs"
        notes.append(f"what attelbo evaluate found of other weights than those of the result is left out: {runs}")
    statements = _statements(comparison, pair)
    _show(comparison, statements)
    for path in outputs:
        write(path, comparison, statements, each_run)
        sys.stdout.write(f"{path}\n")


def _agree(runs: Sequence[Run], udr: "Similarity") -> list[str]:
    """Add UDR to the runs of each setting, one per seed, which differ in nothing but their seed; notes on it.

    Raises:
        UserError: it is known for no setting.
    """
    groups = {setting.label: list({run.seed: run for run in setting.runs}.values()) for setting in settings_of(runs)}
    groups = {label: group for label, group in groups.items() if len(group) > 1}
    if not groups:
        raise UserError(f"--udr {udr}: it takes at least two runs that differ in nothing but their seed")
    from attelbo.experiments.evaluation.agreement import MEASURE, evaluate_agreement  # torch

    lacking: dict[str, UserError] = {}
    for label, group in groups.items():
        try:
            values = evaluate_agreement([run.path for run in group], udr)
        except UserError as error:
            lacking[label] = error
            continue
        for run, value in zip(group, values, strict=True):
            run.add(MEASURE, value)
    if len(lacking) == len(groups):
        raise UserError(f"--udr {udr}: {next(iter(lacking.values()))}")
    return [
        "UDR is the mean over seeds of how far each agrees with the others; it has no interval, since these values are "
        "made of the same pairs of seeds",
        *(f"no UDR of {label}: {error}" for label, error in lacking.items()),
    ]


def write(path: Path, comparison: Comparison, statements: Sequence[str], each_run: bool = False) -> None:
    """Write the comparison in the form of the file's suffix; a .csv has a line for each setting, or for each run.

    Raises:
        UserError: it cannot be written.
    """
    if path.suffix == ".html":
        from attelbo.experiments.comparison.page import page

        content = page(comparison, statements)
    else:
        form = runs_as_csv if each_run and path.suffix == ".csv" else FORMS[path.suffix]
        content = form(comparison)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror}") from error


def _statements(comparison: Comparison, pair: tuple[int, int] | None) -> list[str]:
    """The paired comparison of two settings, a line for each of the table's metrics."""
    order = comparison.order
    if pair is None:
        if len(order) != 2:
            return []
        pair = (1, 2)
    if pair[0] == pair[1] or not all(1 <= number <= len(order) for number in pair):
        raise UserError(f"--pair {pair[0]} {pair[1]}: two of the settings 1 to {len(order)}")
    a, b = order[pair[0] - 1], order[pair[1] - 1]
    results = [(metric, comparison.paired(a, b, metric)) for metric in comparison.metrics if metric.key != UDR]
    if results and all(result is None for _, result in results):
        return [f"{a.label} and {b.label} share fewer than two seeds: nothing can be said about their difference"]
    return [
        f"{metric.label}: "
        + (
            "it is known for fewer than two of the seeds that they share"
            if result is None
            else result.statement(a.label, b.label, metric.unit.partition(",")[0])
        )
        for metric, result in results
    ]


def _show(comparison: Comparison, statements: Sequence[str]) -> None:
    from attelbo.experiments.terminal import print_whole, terminal

    console = terminal()
    print_whole(console, as_rich(comparison))
    for statement in (*comparison.notes, *statements):
        console.print(statement)
    found = comparison.found
    if found.repeated:
        console.print(f"older runs of the same configurations, left out: {found.repeated}")
    for run in found.unfinished:
        console.print(f"{run.state}, left out: {run.path}")
