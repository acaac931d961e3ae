"""``sweep.json``: the jobs of a sweep. Their states are in their run directories.

A search is a sweep whose jobs are not known in advance: its ledger also has the search's space and objective.

A sweep's directory is named by what it runs, so the same command finds it again. In one that is given by hand
(``hydra.sweep.dir``) a sweep may grow, by more seeds, say, and each job keeps its number; another sweep is refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attelbo.errors import ConfigError, UserError
from attelbo.experiments.composing import is_task_word
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import read_json, write_atomically

FILE = "sweep.json"

_BEST: Mapping[str, Any] = {"minimize": min, "maximize": max}
_MAY_GROW = {"n_trials", "proposals", "concurrent"}
"""Keys of a search that may differ when it is continued."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    number: int
    hash: str
    """Of its configuration: the name of its directory."""
    words: Sequence[str]
    """Its overrides."""


@dataclass(frozen=True)
class Ledger:
    """The jobs of a sweep in their order.

    Args:
        path: the sweep's directory.
        jobs: numbered from 0.
        search: the record of a search; None: the jobs are all that there are.
    """

    path: Path
    jobs: Sequence[Job]
    search: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> "Ledger | None":
        """The ledger of a directory; None if there is none.

        Raises:
            UserError: it cannot be read.
        """
        content = read_json(path / FILE)
        if content is None:
            return None
        jobs = [Job(job["number"], job["hash"], job["words"]) for job in content["jobs"]]
        return cls(path, jobs, content.get("search"))

    @classmethod
    def open(
        cls,
        path: Path,
        planned: Sequence[tuple[str, Sequence[str]]],
        search: Mapping[str, Any] | None = None,
        part: bool = False,
    ) -> "Ledger":
        """Write the ledger of a sweep with these jobs (hash, overrides) and return it: a new one, or the existing one
        with the new jobs added.

        Args:
            path: the sweep's directory.
            planned: all jobs of a sweep, or further ones of a search.
            search: the record of the search.
            part: whether the sweep may have jobs that are not planned now, which stay as they are.

        Raises:
            ConfigError: the directory is that of another sweep.
            UserError: it cannot be written.
        """
        planned = list(dict(planned).items())  # the same job twice is one
        before = cls.read(path)
        known = [] if before is None else list(before.jobs)
        if before is not None and (told := _other_search(before.search, search)):
            raise ConfigError(
                f"hydra.sweep.dir: {path} is another sweep: {told}; a search may get more trials, not change: give "
                "this one another folder"
            )
        hashes = {hash_ for hash_, _ in planned} if search is None else {job.hash for job in known}
        if not part and (missing := [job for job in known if job.hash not in hashes]):
            raise ConfigError(
                f"hydra.sweep.dir: {path} is another sweep: {_difference(known, planned)}; a sweep may grow, not "
                f"change: give this one another folder ({len(missing)} of its {len(known)} jobs are not among these)"
            )
        numbered = {job.hash for job in known}
        new = [(hash_, words) for hash_, words in planned if hash_ not in numbered]
        ledger = cls(path, [*known, *(Job(n, *job) for n, job in enumerate(new, len(known)))], search)
        ledger.write()
        return ledger

    def write(self) -> None:
        """Write the ledger, with the present states of the jobs.

        Raises:
            UserError: the directory cannot be written.
        """
        jobs = [
            {"number": job.number, "hash": job.hash, "state": self.state(job), "words": list(job.words)}
            for job in self.jobs
        ]
        search = {} if self.search is None else {"search": self.search}
        content = {"sweep": self.path.name, **search, "jobs": jobs}
        try:
            write_atomically(self.path / FILE, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise UserError(
                f"paths.output_dir: cannot write {self.path / FILE}: {error.strerror}; choose another with "
                "paths.output_dir=<folder>"
            ) from error

    def directory(self, job: Job) -> RunDirectory:
        """A job's directory."""
        return RunDirectory(self.path / job.hash)

    def state(self, job: Job) -> str:
        """The state in its run directory; ``killed`` if that is ``running`` but no process holds it."""
        directory = self.directory(job)
        state = directory.status()["state"]
        return "killed" if state == "running" and not directory.is_held else state

    def seconds(self, job: Job) -> float | None:
        """The time of a job that is done, evaluation included, or of the training of one that was pruned."""
        directory = self.directory(job)
        if (result := directory.read("result.json")) is not None:
            return sum(result["seconds"].values())
        status = directory.status()
        return status.get("train_seconds") if status["state"] == "pruned" else None

    def curve(self, job: Job) -> list[float]:
        """In a search: the values of a job's validations, in their order; empty before the first."""
        assert self.search is not None
        return self.directory(job).curve(self.search["metric"])

    def best(self, job: Job) -> float | None:
        """In a search: the best validation of a job, by which its weights are chosen too; None before the first."""
        assert self.search is not None
        values = [value for value in self.curve(job) if not math.isnan(value)]
        return _BEST[self.search["direction"]](values, default=None)


def _other_search(theirs: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> str:
    """How two searches differ; empty if one is the other with more trials."""
    if theirs is None or ours is None:
        return "" if theirs is ours else "one of the two is a search"
    told = []
    for key in {**theirs, **ours}.keys() - _MAY_GROW:
        there, here = theirs.get(key), ours.get(key)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            told += [
                f"{name} {there.get(name, 'not given')} there, {here.get(name, 'not given')} here"
                for name in {**there, **here}
                if there.get(name) != here.get(name)
            ]
        elif there != here:
            told.append(f"{key} {there} there, {here} here")
    return "; ".join(sorted(told)[:4])


def _difference(known: Sequence[Job], planned: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The differences between the words of two sweeps."""
    theirs, ours = _swept([job.words for job in known]), _swept([words for _, words in planned])
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    told = [f"{key} {_told(theirs.get(key))} there, {_told(ours.get(key))} here" for key in keys[:4]]
    return "; ".join(told) or "the files of conf/ have changed since"


def _swept(jobs: Sequence[Sequence[str]]) -> Mapping[str, list[str]]:
    values: dict[str, dict[str, None]] = {}
    for words in jobs:
        for word in words:
            key, _, value = word.partition("=")
            if not key.startswith("hydra."):
                values.setdefault(key, {})[value] = None
    return {key: list(found) for key, found in values.items()}


def _told(values: Sequence[str] | None) -> str:
    return "not given" if values is None else ",".join(values)


def differing_words(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words of each job that not all jobs have."""
    common = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
    return [[word for word in words if word not in common and is_task_word(word)] for words in jobs]


def summary(states: Sequence[str]) -> str:
    """``3 done, 1 failed``."""
    counts: dict[str, int] = dict.fromkeys(
        ("done", "pruned", "running", "failed", "interrupted", "killed", "pending"), 0
    )
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "no jobs"


def sweeps_below(paths: Sequence[Path]) -> list[Path]:
    """The directories of all sweeps in these folders.

    Raises:
        UserError: a folder does not exist, or there is no sweep in any.
    """
    found: dict[Path, Any] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"sweep status: {path}: no such folder")
        found |= {file.parent: None for file in sorted(path.glob(f"**/{FILE}"))}
    if not found:
        raise UserError(f"sweep status: there is no sweep in {', '.join(map(str, paths))}")
    return list(found)


def best_line(ledger: Ledger) -> str:
    """The best job so far, in a line; empty before the first."""
    assert ledger.search is not None
    values = [(ledger.best(job), job) for job in ledger.jobs if ledger.state(job) == "done"]
    known = [(value, job) for value, job in values if value is not None]
    if not known:
        return ""
    sign = -1 if ledger.search["direction"] == "maximize" else 1
    value, job = min(known, key=lambda each: sign * each[0])
    words = [word for word in job.words if word.partition("=")[0] in ledger.search["parameters"]]
    return f"best {ledger.search['metric']} {value:.6g}: job {job.number}, {' '.join(words)} [{ledger.path / job.hash}]"
