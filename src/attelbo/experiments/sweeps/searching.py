"""A search: a sweep whose jobs are chosen while it runs, by the results of earlier ones.

Each trial is a job like any other: a run directory, a line in the ledger, launched by any launcher, so the same command
again keeps what is done and resumes what was interrupted before anything new is chosen. The jobs of a batch
(``sweep.concurrent``) are chosen together, launched together, and reported to the sampler together: what is chosen does
not depend on timing.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble, parent_of
from attelbo.experiments.comparison.settings import leaves
from attelbo.experiments.configuration import Composition, check, compose
from attelbo.experiments.rundir import FINISHED, computed, config_hash, digest
from attelbo.experiments.sweeps import pruning
from attelbo.experiments.sweeps.expanding import is_zipped, shared_words
from attelbo.experiments.sweeps.ledger import Job, Ledger, best_line, summary
from attelbo.experiments.sweeps.running import launch_all, owned
from attelbo.experiments.sweeps.space import Parameter, Value, point, size_of, space_of
from attelbo.experiments.sweeps.specification import Sweep

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

    from attelbo.experiments.sweeps.study import Study

_TRIES = 100
"""Proposals in a row that are jobs already, after which no further is asked for."""


@dataclass(frozen=True)
class Search:
    """A search that was checked.

    Args:
        sweep: its settings.
        space: its parameters.
        middle: the job in the middle of the space.
        metric: the validation metric that is optimized.
        direction: which way.
        config_dir: a folder that adds to the groups.
    """

    sweep: Sweep
    space: Sequence[Parameter]
    middle: Composition
    metric: str
    direction: str
    config_dir: Path | None

    @classmethod
    def of(cls, root: str, sweep: Sweep, config_dir: Path | None = None) -> "Search":
        """Check what all jobs share, each choice and the middle of each interval.

        Raises:
            ConfigError: something is wrong, or the model names no metric to optimize.
        """
        if zipped := [word for word in sweep.words if is_zipped(word)]:
            raise ConfigError(
                f"{zipped[0]} (command line): zipped lists are no space to search: leave out sweep.sampler"
            )
        space = space_of(sweep.words)
        if sweep.sampler == "grid":
            point(space, sweep.sampler, sweep.seed, 0)  # is there a grid at all?
        at = {parameter.key: parameter.at(0.5) for parameter in space}
        for parameter in space:
            for choice in parameter.choices:
                words = _words(sweep, space, {**at, parameter.key: choice})
                check(compose(root, words, config_dir=config_dir))
        middle = compose(root, _words(sweep, space, at), config_dir=config_dir)
        check(middle)
        _refuse(middle)
        metric, direction = sweep.metric, sweep.direction
        if metric is None:
            monitor = assemble(middle.config)[0].monitor
            if monitor is None:
                raise ConfigError("sweep.metric: no metric tells when this model is at its best: name one, val/...")
            metric, direction = monitor[0], f"{monitor[1]}imize"
        assert direction is not None
        return cls(sweep, space, middle, metric, direction, config_dir)

    def words(self, values: Mapping[str, Value]) -> list[str]:
        """The overrides of the job with these values."""
        return _words(self.sweep, self.space, values)

    @property
    def record(self) -> dict[str, Any]:
        """Its record in the ledger."""
        swept = {parameter.key for parameter in self.space}
        shared = leaves(computed(self.middle.config))
        return {
            "metric": self.metric,
            "direction": self.direction,
            "sampler": self.sweep.sampler,
            "seed": self.sweep.seed,
            "pruner": self.sweep.pruner,
            "warmup": self.sweep.warmup,
            "concurrent": self.sweep.concurrent,
            "n_trials": self.sweep.n_trials,
            "proposals": 0,
            "parameters": {parameter.key: parameter.word for parameter in self.space},
            "configuration": {key: value for key, value in shared.items() if key not in swept},
        }

    @property
    def folder(self) -> Path:
        """The sweep's directory, named by the search but not by its number of trials."""
        what = {key: value for key, value in self.record.items() if key not in ("concurrent", "n_trials", "proposals")}
        return parent_of(self.middle.config) / f"search-{digest(what)}"


def _words(sweep: Sweep, space: Sequence[Parameter], values: Mapping[str, Value]) -> list[str]:
    return [*shared_words(sweep.words), *(parameter.word_of(values[parameter.key]) for parameter in space)]


def _refuse(job: Composition) -> None:
    """Raise ConfigError for what a search cannot be combined with."""
    if not job.config["logger"]:
        raise ConfigError("logger: a search reads metrics.csv: leave out logger=none")
    if job.config["trainer"]["replicas"] > 1:
        raise ConfigError("trainer.replicas: the jobs of a search have a process to themselves: leave it out")
    if not job.hydra.sweeper._target_.endswith(".BasicSweeper"):
        raise ConfigError("hydra/sweeper: sweep.sampler chooses the jobs: leave out hydra/sweeper=...")


def run(hydra: "Hydra", search: Search, folder: Path, shared: Sequence[str], task: Callable[..., Any]) -> int:
    """Resume the jobs that are not finished, choose and run others until there are enough, and print the best: the exit
    code of the command.

    Args:
        hydra: that of the session.
        search: the search.
        folder: the sweep's directory.
        shared: the words that all jobs have in common, and Hydra's own.
        task: what a job runs.

    Raises:
        ConfigError: the folder is that of another sweep.
        UserError: it cannot be written, or belongs to another process.
    """
    from attelbo.experiments.sweeps.study import Study  # Optuna takes a while to import

    with owned(folder):
        before = Ledger.read(folder)
        proposals = before.search["proposals"] if before is not None and before.search else 0
        ledger = Ledger.open(folder, [], {**search.record, "proposals": proposals})
        study = Study(folder, search.record)
        waiting = [job for job in ledger.jobs if ledger.state(job) not in FINISHED]
        if done := len(ledger.jobs) - len(waiting):
            sys.stdout.write(f"sweep: {done} of {search.sweep.n_trials} jobs are done already in {folder}\n")
        stopped = 0
        try:
            while not stopped:
                study.catch_up(ledger, search.space)
                n = search.sweep.concurrent
                batch, waiting = waiting[:n], waiting[n:]
                if not batch:
                    ledger, batch = _choose(study, search, ledger)
                if not batch:
                    break
                _prepare(ledger, batch)
                stopped = launch_all(hydra, search.middle.root, shared, ledger, batch, task)
        finally:
            ledger.write()
    states = [ledger.state(job) for job in ledger.jobs]
    sys.stdout.write(f"sweep: {summary(states)} in {folder}\n")
    if best := best_line(ledger):
        sys.stdout.write(f"sweep: {best}\n")
    failed = any(state not in FINISHED for state in states)
    if failed or stopped:
        sys.stdout.write("sweep: the same command again goes on from here\n")
    return stopped or int(failed)


def _choose(study: "Study", search: Search, ledger: Ledger) -> tuple[Ledger, list[Job]]:
    """The next batch, added to the ledger as a whole; empty when there are enough jobs or the space is exhausted."""
    assert ledger.search is not None
    index, tries, new = ledger.search["proposals"], 0, dict[str, list[str]]()
    known, tried = {job.hash for job in ledger.jobs}, [list(job.words) for job in ledger.jobs]
    left = min(search.sweep.n_trials, size_of(search.space)) - len(ledger.jobs)
    while len(new) < min(search.sweep.concurrent, left) and tries < _TRIES:
        proposal = study.propose(search.space, search.sweep, index)
        if proposal is None:
            break
        index, tries = index + 1, tries + 1
        words = search.words(proposal.values)
        if words in tried:
            proposal.withdraw()
            continue
        tried.append(words)
        job = compose(search.middle.root, words, config_dir=search.config_dir)
        check(job)
        hash_ = config_hash(job.config)
        if hash_ in known:  # two choices may compose the same configuration
            proposal.withdraw()
            continue
        proposal.become(hash_)
        known.add(hash_)
        new[hash_], tries = words, 0
    if not new:
        if len(ledger.jobs) < search.sweep.n_trials:
            sys.stdout.write(f"sweep: these {len(ledger.jobs)} jobs are all that were found in the space\n")
        return ledger, []
    ledger = Ledger.open(ledger.path, list(new.items()), {**ledger.search, "proposals": index})
    return ledger, list(ledger.jobs[-len(new) :])


def _prepare(ledger: Ledger, batch: Sequence[Job]) -> None:
    """Record for each job of the batch which jobs it is compared with."""
    if ledger.search is not None and ledger.search["pruner"]:
        finished = [job.hash for job in ledger.jobs if ledger.state(job) in FINISHED]
        for job in batch:
            pruning.prepare(ledger.directory(job), ledger.search, finished)
