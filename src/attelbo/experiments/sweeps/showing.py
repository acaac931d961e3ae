"""``attelbo sweep dry`` and ``attelbo sweep status``: the jobs of a sweep, as a table."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attelbo.experiments.configuration import Composition
from attelbo.experiments.rundir import config_hash
from attelbo.experiments.sweeps.ledger import Job, Ledger, differing_words, ledgers_below, summary


def dry(plan: Sequence[Composition], folder: Path) -> None:
    """Print what a sweep would run, the state of each job, and what is left to do, by what the finished ones took."""
    known = Ledger.read(folder)
    numbers = {} if known is None else {job.hash: job.number for job in known.jobs}
    hashes = list(dict.fromkeys(config_hash(job.config) for job in plan))
    new = iter(range(len(numbers), len(numbers) + len(hashes)))
    words = {config_hash(job.config): job.overrides for job in plan}
    jobs = [Job(numbers[h] if h in numbers else next(new), h, words[h]) for h in hashes]
    _print(Ledger(folder, sorted(jobs, key=lambda job: job.number)))


def status(paths: Sequence[Path]) -> None:
    """Print the jobs of every sweep in these folders.

    Raises:
        UserError: there is none.
    """
    for ledger in ledgers_below(paths):
        _print(ledger)


def _print(ledger: Ledger) -> None:
    states = {job.hash: ledger.state(job) for job in ledger.jobs}
    seconds = {job.hash: ledger.seconds(job) for job in ledger.jobs if states[job.hash] == "done"}
    shown = differing_words([job.words for job in ledger.jobs])
    table = Table(box=None, title=str(ledger.path), title_justify="left")
    for name, justify in (("#", "right"), ("state", "left"), ("s", "right"), ("job", "left"), ("directory", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
    for job, words in zip(ledger.jobs, shown, strict=True):
        took = seconds.get(job.hash)
        table.add_row(
            str(job.number), states[job.hash], "" if took is None else f"{took:.1f}", " ".join(words) or "-", job.hash
        )
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, 200)
    console.print(table, highlight=False, markup=False)
    console.print(f"{summary(list(states.values()))}{_left(states, seconds)}", highlight=False, markup=False)


def _left(states: dict[str, str], seconds: dict[str, float | None]) -> str:
    """What the unfinished jobs will take, if they are like the finished ones."""
    known = [value for value in seconds.values() if value is not None]
    unfinished = sum(state != "done" for state in states.values())
    if not unfinished:
        return ""
    if not known:
        return "; what a job costs is known when the first is done"
    mean = statistics.fmean(known)
    return f"; about {mean * unfinished / 60:.1f} min of work left, at {mean:.1f} s a job (mean of {len(known)})"
