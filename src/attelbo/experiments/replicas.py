"""Many small runs in one process: the jobs of a sweep in groups, each trained as one stacked model.

``trainer.replicas=4`` alone trains four seeds; with ``-m``, four jobs of any sweep at a time. What is written is what
the same sweep writes without replicas: its ledger and the same directories, each with its own status, checkpoints and
result, so the same command again goes on where this one stopped, with replicas or without.

Jobs share a group if they differ in nothing but seed, optimizer, schedules and numbers of the model.
"""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attelbo.data.module import Splits
from attelbo.errors import ConfigError, UserError, one_line, reachable, within_memory
from attelbo.experiments import run
from attelbo.experiments.assembly import Config, assemble, trainer_of
from attelbo.experiments.configuration import Composition
from attelbo.experiments.rundir import RunDirectory, config_hash
from attelbo.experiments.sweeps.ledger import Ledger
from attelbo.experiments.sweeps.running import owned
from attelbo.experiments.tables import print_replicas
from attelbo.training import check_steps
from attelbo.training.interruption import relayed
from attelbo.training.replicas import Group, NotStackableError, Seat, check_stackable, differing_numbers, refused
from attelbo.training.stepping import Switch

_MAY_DIFFER = ("name", "seed", "tags", "ckpt", "model", "optimizer", "scheduler", "logger", "callbacks", "evaluation")
"""Keys of the configuration that a group's jobs need not have in common; of ``model`` only numbers may differ."""

_Described = tuple[Config, list[str], Mapping[str, str | None]]
"""A job: its configuration, its words and its choices."""


def replicas_of(plan: Sequence[Composition]) -> int:
    """How many runs share a process.

    Raises:
        ConfigError: not the same for all jobs, or more than one where each job has a process of its own, or where the
            jobs are not known in advance.
    """
    sizes = {job.config["trainer"]["replicas"] for job in plan}
    if len(sizes) > 1:
        raise ConfigError("trainer.replicas must be the same for all jobs of a sweep")
    (size,) = sizes
    for what, name in (("launcher", "BasicLauncher"), ("sweeper", "BasicSweeper")):
        if size > 1 and not plan[0].hydra[what]._target_.endswith(f".{name}"):
            raise ConfigError(f"trainer.replicas: replicas share this process: leave out hydra/{what}=...")
    return size


def train(plan: Sequence[Composition], sweep: Path) -> int:
    """Train the jobs of a plan in groups; the exit code of the command.

    Raises:
        ConfigError: a job cannot be built, or not with replicas; nothing has been written.
    """
    words = [[word for word in job.overrides if not word.startswith("hydra")] for job in plan]
    jobs = [(job.config, own, job.choices) for job, own in zip(plan, words, strict=True)]
    return _train(jobs, sweep, replicas_of(plan))


def train_again(jobs: Sequence[_Described], sweep: Path) -> int:
    """Train jobs that were one group before; the exit code of the command.

    Args:
        jobs: configuration, words and choices of each.
        sweep: the folder of their directories.
    """
    return _train(jobs, sweep, len(jobs))


def _train(described: Sequence[_Described], sweep: Path, size: int) -> int:
    # No job runs if another cannot be built; the same job twice is one.
    jobs = list({config_hash(job[0]): _Job(*job, sweep) for job in described}.values())
    code, loaded = 0, {}
    for group in _groups([job for job in jobs if job.directory.status()["state"] != "done"], size):
        _check(group, loaded)
    with owned(sweep):
        ledger = Ledger.open(sweep, [(job.directory.path.name, job.words) for job in jobs])
        try:
            for group in _groups([job for job in jobs if not job.is_done()], size):
                code = max(code, *_train_together(group, loaded))
                if code > 128:  # a signal that stops this process stops the sweep
                    break
        finally:
            ledger.write()
    print_replicas([job.directory.path for job in jobs], sweep)
    return code if code > 128 else min(code, 1)


class _Job:
    """One run of a group."""

    def __init__(self, config: Config, words: list[str], choices: Mapping[str, str | None], sweep: Path) -> None:
        self.config = config
        self.words = words
        self.choices = choices
        self.sweep = sweep
        self.model, self.data = assemble(self.config)
        self.directory = RunDirectory(sweep / config_hash(self.config))

    def is_done(self) -> bool:
        """Whether it ran before; a line says so."""
        done = self.directory.status()["state"] == "done"
        if done:
            sys.stdout.write(f"{self.directory.path} is done already\n")
        return done

    def goes_with(self, other: "_Job") -> bool:
        """Whether the two can be stacked, as far as their configurations and models tell."""
        if _common(self.config) != _common(other.config):
            return False
        try:
            differing_numbers([self.model, other.model])
        except NotStackableError:
            return False
        return True

    def train(self, seat: Seat, stopped: Callable[[], int | None]) -> int:
        """Train, in a thread of the group; the exit code."""
        if number := stopped():
            return 128 + number
        seat.name = self.directory.path.name
        try:
            with within_memory(), reachable():
                return run.train(self.config, self.words, self.choices, self.sweep, seat).exit_code
        except UserError as error:
            sys.stderr.write(f"error: {one_line(error)} [{self.directory.path}]\n")
            return 2
        except Exception:
            traceback.print_exc()
            return 1


def _common(config: Mapping[str, Any]) -> dict[str, Any]:
    """What all jobs of a group share."""
    common = {key: value for key, value in config.items() if key not in _MAY_DIFFER}
    return common | {"data": {key: value for key, value in config["data"].items() if key != "seed"}}


def _groups(jobs: Sequence[_Job], size: int) -> list[list[_Job]]:
    """The jobs in their order, each in the first group that has room for it and can be stacked with it."""
    groups: list[list[_Job]] = []
    for job in jobs:
        found = next((group for group in groups if len(group) < size and job.goes_with(group[0])), None)
        if found is None:
            groups.append([job])
        else:
            found.append(job)
    return groups


def _check(group: Sequence[_Job], loaded: dict[str, Splits]) -> None:
    """Raise ConfigError where a group could not be trained so; its data are loaded and put into ``loaded``. The models
    are for this check only."""
    first = group[0]
    first.data.prepare_data()
    first.data.share(loaded)
    first.data.setup()
    stack = _stack(first.config)
    steps = check_steps(trainer_of(first.config, Group(2, stack).seats[0]), first.model, first.data)
    if stack is not True or len(group) == 1:
        return
    for job in group:
        job.model.train().at_step(0, steps)
    rows = torch.arange(min(first.data.batch_size, first.data.n_rows("train")))
    try:
        check_stackable([job.model for job in group], first.data.materialize(rows, "train"))
    except NotStackableError as reason:
        raise refused(reason) from reason


def _stack(config: Config) -> Switch:
    """Whether replicas are stacked: never where they are compiled."""
    return False if config["trainer"]["compile"] is True else config["trainer"]["stack"]


def _train_together(jobs: Sequence[_Job], loaded: dict[str, Splits]) -> list[int]:
    """Train the jobs of a group; the exit code of each."""
    for job in jobs:
        del job.model, job.data  # each run builds its own
    group = Group(len(jobs), _stack(jobs[0].config))
    group.loaded = loaded
    with relayed() as stopped:
        ends = group.run([lambda seat, job=job: job.train(seat, stopped) for job in jobs])
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return [end for end in ends if isinstance(end, int)]
