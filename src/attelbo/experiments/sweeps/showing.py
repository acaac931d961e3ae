"""``attelbo sweep dry`` and ``attelbo sweep status``: the jobs of a sweep, as a table."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from attelbo.errors import UserError, leave_out
from attelbo.experiments.rundir import FINISHED, config_hash
from attelbo.experiments.sweeps.ledger import Job, Ledger, best_line, differing_words, summary, sweeps_below
from attelbo.experiments.terminal import terminal

if TYPE_CHECKING:  # imports torch and lightning, for which the state of a sweep does not wait
    from attelbo.experiments.configuration import Composition
    from attelbo.experiments.sweeps.searching import Search


def dry(plan: Sequence["Composition"], folder: Path) -> None:
    """Print the jobs that a sweep would run, their states, and an estimate of the time that is left."""
    known = Ledger.read(folder)
    numbers = {} if known is None else {job.hash: job.number for job in known.jobs}
    hashes = list(dict.fromkeys(config_hash(job.config) for job in plan))
    new = iter(range(len(numbers), len(numbers) + len(hashes)))
    words = {config_hash(job.config): job.overrides for job in plan}
    jobs = [Job(numbers[h] if h in numbers else next(new), h, words[h]) for h in hashes]
    _print(Ledger(folder, sorted(jobs, key=lambda job: job.number)))


def dry_search(search: "Search", folder: Path) -> None:
    """Print the jobs that a search has chosen so far, and how many are to come."""
    known = Ledger.read(folder)
    ledger = Ledger(folder, known.jobs if known else [], search.record)
    _print(ledger)


def status(paths: Sequence[Path]) -> None:
    """Print the jobs of every sweep in these folders.

    Raises:
        UserError: there is none, or none can be read; one of several that cannot is a line on the standard error.
    """
    unread, folders = list[UserError](), sweeps_below(paths)
    for folder in folders:
        try:
            if (ledger := Ledger.read(folder)) is not None:
                _print(ledger)
        except UserError as error:  # its own file, or that of a job
            unread.append(error)
    leave_out(unread, len(folders) - len(unread))


def _print(ledger: Ledger) -> None:
    states = {job.hash: ledger.state(job) for job in ledger.jobs}
    seconds = {job.hash: ledger.seconds(job) for job in ledger.jobs if states[job.hash] in FINISHED}
    shown = differing_words([job.words for job in ledger.jobs])
    table = Table(box=None, title=str(ledger.path), title_justify="left")
    for name in ("#", "state", "s", *([ledger.search["metric"]] if ledger.search else []), "job", "directory"):
        justify = "left" if name in ("state", "job", "directory") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for job, words in zip(ledger.jobs, shown, strict=True):
        took = seconds.get(job.hash)
        best = [_number(ledger.best(job))] if ledger.search else []
        table.add_row(
            *(str(job.number), states[job.hash], "" if took is None else f"{took:.1f}", *best),
            *(" ".join(words) or "-", job.hash),
        )
    console = terminal(200)
    console.print(table)
    coming = ledger.search["n_trials"] - len(ledger.jobs) if ledger.search else 0
    console.print(f"{summary(list(states.values()))}{_left(states, seconds, coming)}")
    if ledger.search:
        for line in filter(None, (best_line(ledger), _importances(ledger))):
            console.print(line)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _left(states: dict[str, str], seconds: dict[str, float | None], coming: int) -> str:
    """The time that unfinished jobs, and those still to be chosen, will take if they are like the finished ones."""
    known = [value for value in seconds.values() if value is not None]
    unfinished = sum(state not in FINISHED for state in states.values()) + coming
    if not unfinished:
        return ""
    to_come = f", {coming} to be chosen" if coming else ""
    if not known:
        return f"{to_come}; what a job costs is known when the first is done"
    mean = statistics.fmean(known)
    return (
        f"{to_come}; about {mean * unfinished / 60:.1f} min of work left, at {mean:.1f} s a job (mean of {len(known)})"
    )


def _importances(ledger: Ledger) -> str:
    """How much each parameter matters to the metric, in a line; empty where too few jobs are done to say, or, with a
    line on the standard error, where the study cannot be read: the rest does not need it."""
    from attelbo.experiments.sweeps import study

    assert ledger.search is not None
    if not (ledger.path / study.FILE).is_file():
        return ""
    try:
        shares = study.importances(ledger.path)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return ""
    text = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
    return f"of what makes a job good: {text}" if text else ""
