"""The run directory, the single source of truth about a run: ``outputs/<name>/<run id>/``.

    config.yaml (resolved)   .hydra/   provenance.json   status.json   result.json
    metrics.csv   checkpoints/   media/   report.html

A single run gets a new directory, named by the time and the hash of its configuration; a job of a sweep
is named by the hash alone, so that the same sweep finds it again. A process locks the directory that it
works in, and the lock ends with the process: a run that was killed can be told from one that is still
running.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from attelbo.errors import UserError, one_line
from attelbo.files import METRICS_FILE, checked, find_run, read_json, read_metrics, read_yaml, write_atomically
from attelbo.records import State

FINISHED = ("done", "pruned")
"""States of a run that is not run again."""

NOT_IN_HASH = ("paths", "logger", "tags")
"""Keys that say where to read and write, not what to compute."""

NOT_IN_HASH_OF = {"data": ("root",), "trainer": ("replicas", "stack")}
"""Such keys inside others."""


_Kind = TypeVar("_Kind", dict[str, Any], list[str])


def given_checkpoint(config: Mapping[str, Any]) -> Path | None:
    """Another run's checkpoint that this one begins with; None where it begins anew or resumes itself
    (``ckpt=auto``)."""
    return None if config.get("ckpt") in (None, "auto") else Path(config["ckpt"])


def computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that says what is computed, including another run's checkpoint to begin with."""
    what = {key: value for key, value in config.items() if key not in NOT_IN_HASH}
    if given_checkpoint(config) is None:
        what.pop("ckpt", None)
    if (init := what.get("init", {})).get("run") is None and not init.get("freeze"):
        what.pop("init", None)
    for node, keys in NOT_IN_HASH_OF.items():
        what[node] = {key: value for key, value in what[node].items() if key not in keys}
    return what


def config_hash(config: Mapping[str, Any]) -> str:
    """8 hexadecimal digits: equal for configurations that compute the same."""
    return digest(computed(config))


def digest(content: Any) -> str:
    """8 hexadecimal digits of plain containers, whatever the order of their keys."""
    return short_hash(json.dumps(content, sort_keys=True))


def short_hash(text: str) -> str:
    """8 hexadecimal digits of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class RunDirectory:
    """One run's directory and what is written about it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- finding and making ------------------------------------------------------------------------

    @classmethod
    def new(cls, parent: Path, config: Mapping[str, Any]) -> "RunDirectory":
        """A directory that did not exist before, whoever else makes one in the same second.

        Raises:
            UserError: the output folder cannot be written.
        """
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{config_hash(config)}"
        for attempt in range(1, 1000):
            path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
            with contextlib.suppress(FileExistsError):
                return cls.made(path, exist_ok=False)
        raise UserError(f"{parent}: no free name for a new run beside {stem}")

    @classmethod
    def job(cls, sweep: Path, config: Mapping[str, Any]) -> "RunDirectory":
        """The directory of a job in its sweep: new, or the one it had before."""
        return cls.made(sweep / config_hash(config))

    @classmethod
    def latest(cls, parent: Path, config: Mapping[str, Any]) -> "RunDirectory | None":
        """The newest run of this configuration; None if it never ran."""
        wanted = config_hash(config)
        found = [cls(path.parent) for path in parent.glob("*/status.json") if wanted in path.parent.name]
        found = [run for run in found if run.status().get("config_hash") == wanted]
        return max(found, key=lambda run: run.status().get("started", ""), default=None)

    @classmethod
    def find(cls, path: Path, among: Callable[["RunDirectory"], bool] | None = None) -> "RunDirectory":
        """The run in ``path``: see :func:`attelbo.files.find_run`."""
        return cls(find_run(path, among and (lambda run: among(cls(run)))))

    @classmethod
    def made(cls, path: Path, exist_ok: bool = True) -> "RunDirectory":
        """A directory, created if it does not exist.

        Raises:
            FileExistsError: it exists, and ``exist_ok`` is false.
            UserError: the output folder cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError:
            if not exist_ok:
                raise
            raise UserError(
                f"paths.output_dir: {path} is a file; choose another with paths.output_dir=<folder>"
            ) from None
        except OSError as error:
            raise UserError(
                f"paths.output_dir: cannot make {path}: {error.strerror}; choose another with paths.output_dir=<folder>"
            ) from error
        return cls(path)

    # -- files -------------------------------------------------------------------------------------

    @property
    def resumable(self) -> Path | None:
        """The checkpoint to resume from, if there is one."""
        checkpoint = self.path / "checkpoints" / "last.ckpt"
        return checkpoint if checkpoint.is_file() else None

    @property
    def sweep(self) -> Path | None:
        """The directory of the sweep that the run is a job of: jobs are named by the hash of their configuration."""
        path = self.path.absolute()
        return path.parent if path.name == self.status().get("config_hash") else None

    def group(self, name: str) -> str:
        """The name of the group that dashboards show the run in: its sweep's, or ``name`` where it is alone."""
        return name if self.sweep is None else self.sweep.name

    def choices(self) -> dict[str, str | None]:
        """Group -> choice, of the run's configuration; empty where Hydra recorded none.

        Raises:
            UserError: the file is damaged.
        """
        return self._recorded("choices", dict)

    def words(self) -> list[str]:
        """The overrides of the command line that began the run.

        Raises:
            UserError: the file is damaged.
        """
        return self._recorded("overrides", list)

    def _recorded(self, name: str, kind: type[_Kind]) -> _Kind:
        """What Hydra recorded."""
        file = self.path / ".hydra" / f"{name}.yaml"
        try:
            content = read_yaml(file)
        except FileNotFoundError:
            return kind()
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{file} cannot be read: {one_line(error)}") from error
        return checked(file, content)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Metric -> (step, value), in the order of the steps."""
        return read_metrics(self.path / METRICS_FILE)

    def curve(self, metric: str, until: int | None = None) -> list[float]:
        """The values of a metric in their order, those up to a step."""
        return [value for step, value in self.curves().get(metric, []) if until is None or step <= until]

    def status(self) -> dict[str, Any]:
        """How far it is.

        Raises:
            UserError: the file is damaged.
        """
        return self.read("status.json") or {"state": "pending"}

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None where there is none.

        Raises:
            UserError: it is damaged.
        """
        return read_json(self.path / name)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        write_atomically(self.path / name, json.dumps(content, indent=2, allow_nan=True) + "\n")

    def describe(
        self,
        config: dict[str, Any],
        overrides: list[str],
        choices: Mapping[str, str | None],
        provenance: dict[str, Any],
    ) -> None:
        """Write down what is run, and on what."""
        text = _yaml(config)
        write_atomically(self.path / "config.yaml", text)
        write_atomically(self.path / ".hydra" / "config.yaml", text)
        write_atomically(self.path / ".hydra" / "overrides.yaml", _yaml(overrides))
        write_atomically(self.path / ".hydra" / "choices.yaml", _yaml(dict(choices)))
        self.write("provenance.json", provenance)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Mark the run as running; a resumed run keeps its first start and counts its attempts.

        Half-written files of a killed process are removed: the caller holds the lock.
        """
        for leftover in self.path.rglob(".*.tmp"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        before = self.status()
        self.write(
            "status.json",
            {
                "state": "running",
                "config_hash": config_hash(config),
                "started": before.get("started", _now()),
                "attempts": before.get("attempts", 0) + 1,
                "train_seconds": before.get("train_seconds", 0.0),
                "pid": os.getpid(),
                "host": platform.node(),
            },
        )

    def end(self, state: State, train_seconds: float | None = None, error: str | None = None) -> None:
        """Mark how this attempt ended. ``train_seconds``: of all attempts, where this one trained; ``error``: a
        traceback."""
        status = self.status()
        status |= {"state": state, "ended": _now()}
        if train_seconds is not None:
            status["train_seconds"] = train_seconds
        if error is not None:
            status["error"] = error
        self.write("status.json", status)

    @property
    def is_held(self) -> bool:
        """Whether a process works in this directory."""
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Tell the processes that Lightning starts which run they belong to. At the end, remove the variables that
        Lightning has set: with them the next job of a sweep would take itself for such a process.
        """
        before = set(os.environ)
        os.environ["ATTELBO_RUN_DIR"] = str(self.path.absolute())
        try:
            yield
        finally:
            told = {"ATTELBO_RUN_DIR", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"}
            for name in told & set(os.environ) - before:
                del os.environ[name]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the lock ends with the process, however that ends.

    Raises:
        UserError: it belongs to another process, or cannot be written.
    """
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"paths.output_dir: cannot write in {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{folder} is being written by another process") from error
        yield


def _yaml(content: Any) -> str:
    """By libyaml where PyYAML has it: the writer in Python takes five times as long, 14 ms for a configuration."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
