"""Running a sweep: its ledger, its launcher, and what is left when a launcher breaks down.

A job that fails does not stop the others. One that is killed, by the kernel, say, for want of memory, may take its
launcher along: the jobs that had not begun are then launched again; the killed one is told, and goes on from its last
checkpoint when the command is given again.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.experiments.configuration import Composition
from attelbo.experiments.rundir import config_hash
from attelbo.experiments.sweeps.launching import launch
from attelbo.experiments.sweeps.ledger import Ledger, summary

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def run(
    hydra: "Hydra", plan: Sequence[Composition], folder: Path, shared: Sequence[str], task: Callable[..., Any]
) -> int:
    """Run the jobs that are not done, and say what became of all: the exit code of the command.

    Args:
        hydra: of the session.
        plan: the jobs, composed and checked.
        folder: the sweep's directory.
        shared: the words that all jobs have in common, and Hydra's own.
        task: what a job runs.

    Raises:
        ConfigError: the folder is that of another sweep.
        UserError: it cannot be written.
    """
    ledger = Ledger.open(folder, [(config_hash(job.config), job.overrides) for job in plan])
    jobs = [job for job in ledger.jobs if ledger.state(job) != "done"]
    done = len(ledger.jobs) - len(jobs)
    if done:
        sys.stdout.write(f"sweep: {done} of {len(ledger.jobs)} jobs are done already in {folder}\n")
    codes: list[int] = []
    try:
        while jobs:
            try:
                codes += launch(hydra, plan[0].root, shared, [job.words for job in jobs], task)
                break
            except Exception as error:
                sys.stderr.write(f"sweep: the launcher broke down: {type(error).__name__}: {_first_line(error)}\n")
                left = [job for job in jobs if ledger.state(job) == "pending"]
                codes += [int(ledger.state(job) != "done") for job in jobs if job not in left]
                if len(left) == len(jobs):  # it would break down again
                    codes += [1] * len(left)
                    break
                jobs = left
    finally:
        ledger.write()
    failed = sum(code != 0 for code in codes)
    states = [ledger.state(job) for job in ledger.jobs]
    sys.stdout.write(f"sweep: {len(ledger.jobs) - failed} of {len(ledger.jobs)} jobs done in {folder}\n")
    if failed:
        sys.stdout.write(f"sweep: {summary(states)}; the same command again goes on from here\n")
    return 1 if failed else 0


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
