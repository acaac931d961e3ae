"""Running a sweep: its ledger, its launcher, and the remaining jobs when a launcher breaks down.

A job that fails does not stop the others. One that is killed, by the kernel when memory runs out, say, may take its
launcher along: the jobs that had not begun are then launched again; the killed one is reported, and resumes from its
last checkpoint when the command is given again.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.errors import UserError, first_line
from attelbo.experiments.configuration import Composition
from attelbo.experiments.rundir import FINISHED, RunDirectory, config_hash, locked
from attelbo.experiments.sweeps import logs
from attelbo.experiments.sweeps.launching import launch
from attelbo.experiments.sweeps.ledger import Job, Ledger, differing_words, summary

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def run(
    hydra: "Hydra",
    plan: Sequence[Composition],
    folder: Path,
    shared: Sequence[str],
    task: Callable[..., Any],
    only: Collection[str] | None = None,
) -> int:
    """Run the jobs that are not done, and print how all ended: the exit code of the command.

    Args:
        hydra: that of the session.
        plan: the jobs, composed and checked.
        folder: the sweep's directory.
        shared: the words that all jobs have in common, and Hydra's own.
        task: what a job runs.
        only: hashes of the jobs to run; others, including those of the folder that are not in the plan, stay as they
            are. All if None.

    Raises:
        ConfigError: the folder is that of another sweep.
        UserError: it cannot be written.
    """
    with owned(folder):
        planned = [(config_hash(job.config), job.overrides) for job in plan]
        ledger = Ledger.open(folder, planned, part=only is not None)
        chosen = [job for job in ledger.jobs if only is None or job.hash in only]
        jobs = [job for job in chosen if ledger.state(job) not in FINISHED]
        done = len(chosen) - len(jobs)
        if done:
            sys.stdout.write(f"sweep: {done} of {len(chosen)} jobs are done already in {folder}\n")
        try:
            stopped = launch_all(hydra, plan[0].root, shared, ledger, jobs, task)
        finally:
            ledger.write()
    states = [ledger.state(job) for job in chosen]
    done = sum(state in FINISHED for state in states)
    sys.stdout.write(f"sweep: {done} of {len(states)} jobs done in {folder}\n")
    if done < len(states):
        sys.stdout.write(f"sweep: {summary(states)}; the same command again goes on from here\n")
    return stopped or int(done < len(states))


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a sweep's directory, so that no other process runs a sweep in it; created if it does not exist.

    Raises:
        UserError: another process has, or it cannot be written.
    """
    with locked(RunDirectory.made(folder).path):
        yield


def launch_all(
    hydra: "Hydra", root: str, shared: Sequence[str], ledger: Ledger, jobs: Sequence[Job], task: Callable[..., Any]
) -> int:
    """Run jobs of a sweep, and the remaining ones again where the launcher breaks down. Returns the exit code of the
    signal that stopped them, or 0; the state of each job is in its directory."""
    while jobs:
        telling = Telling(ledger, jobs)
        try:
            launch(hydra, root, shared, [job.words for job in jobs], task, telling.ended)
            break
        except SystemExit as signalled:
            return signalled.code if isinstance(signalled.code, int) else 1
        except UserError:
            raise
        except Exception as error:
            sys.stderr.write(f"sweep: the launcher broke down: {type(error).__name__}: {first_line(error)}\n")
            left = [job for job in jobs if ledger.state(job) == "pending"]
            if len(left) == len(jobs):  # it would break down again
                break
            jobs = left
    return 0


class Telling:
    """A line for each job that ran in another process, when it ends.

    Args:
        ledger: of the sweep.
        jobs: those that were launched, in their order.
    """

    def __init__(self, ledger: Ledger, jobs: Sequence[Job]) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._words = differing_words([job.words for job in ledger.jobs])
        self._ended = 0

    def ended(self, place: int, code: int) -> None:
        """The job at this place of the list has ended with this code."""
        self._ended += 1
        job, ledger = self._jobs[place], self._ledger
        state, seconds, log = ledger.state(job), ledger.seconds(job), ledger.directory(job).path / logs.FILE
        words = " ".join(self._words[job.number]) if len(self._words) > 1 else job.hash
        line = f"sweep: {self._ended} of {len(self._jobs)}: {words}: {state}"
        if state in FINISHED:
            line += "" if seconds is None else f", {seconds:.1f} s"
        else:
            said = logs.last_line(log)
            line += f" (exit code {code})" + (f": {said} [{log}]" if said else "")
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
