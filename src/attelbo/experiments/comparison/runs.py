"""The runs to compare, read from their directories, without torch.

A folder with a ``status.json`` is a run. Of several runs of one configuration with the same seed the newest counts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

from attelbo.errors import UserError, leave_out
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import read_config


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read when asked."""

    path: Path
    config: Mapping[str, Any]
    choices: Mapping[str, str | None]
    """Group -> choice, as Hydra recorded them; empty where it did not."""
    status: Mapping[str, Any]

    @property
    def state(self) -> str:
        state = self.status.get("state", "pending")
        return "without result.json" if state == "done" and not (self.path / "result.json").is_file() else state

    @property
    def reason(self) -> str:
        """Why it failed, in a line; empty if it did not."""
        return self.status.get("error", "").strip().rpartition("\n")[2]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @cached_property
    def result(self) -> Mapping[str, Any]:
        """result.json, with what ``attelbo evaluate`` found since of the same weights; empty where the run is not
        done."""
        result = RunDirectory(self.path).read("result.json") or {}
        metrics, measures = dict(result.get("metrics", {})), list(result.get("measures", []))
        for more in self._evaluations:
            if not _of_others(result, more):
                metrics = {**more.get("metrics", {}), **metrics}
                known = {measure[0] for measure in measures}
                measures += [measure for measure in more.get("measures", []) if measure[0] not in known]
        return {**result, "metrics": metrics, "measures": measures}

    @property
    def evaluates_others(self) -> bool:
        """Whether ``attelbo evaluate`` also measured other weights, which say nothing of its result."""
        return any(_of_others(self.result, more) for more in self._evaluations)

    @cached_property
    def _evaluations(self) -> Sequence[Mapping[str, Any]]:
        files = sorted(self.path.glob("evaluation-*.json"))
        return [RunDirectory(self.path).read(file.name) or {} for file in files]

    def add(self, measure: Sequence[Any], value: float) -> None:
        """Add a metric of the test split that the run has only in comparison with others; it is not written down.

        Args:
            measure: an ``attelbo.metrics.Measure``.
            value: of this run.
        """
        self.result["metrics"][f"test/{measure[0]}"] = value
        self.result["measures"].append(measure)

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """provenance.json; empty where there is none."""
        return RunDirectory(self.path).read("provenance.json") or {}

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.result["metrics"]

    @property
    def seconds(self) -> float:
        """Of training and evaluation."""
        return sum(self.result.get("seconds", {}).values())

    @cached_property
    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Metric -> (step, value)."""
        return RunDirectory(self.path).curves()


def _of_others(result: Mapping[str, Any], evaluation: Mapping[str, Any]) -> bool:
    """Whether an evaluation is one of other weights than those of the result."""
    return result.get("checkpoint") not in (None, evaluation.get("checkpoint"))


@dataclass(frozen=True)
class Found:
    """What was found."""

    done: Sequence[Run]
    unfinished: Sequence[Run]
    """Pending, running, failed, interrupted, or done and robbed of their result."""
    repeated: int
    """Older runs of a configuration that ran again."""


def find_runs(patterns: Iterable[str]) -> Found:
    """All runs in these folders, or in those that a glob matches.

    Raises:
        UserError: a folder that does not exist or a glob that matches nothing, no run in any of them, or one that is
            named itself, or all, cannot be read. Others that cannot be read are left out, with a line on the standard
            error.
    """
    directories: dict[Path, bool] = {}
    for pattern in patterns:
        found = [pattern] if Path(pattern).exists() else sorted(glob(pattern, recursive=True))  # noqa: PTH207 - may be absolute
        paths = list(map(Path, found))
        if not paths:
            raise UserError(f"{pattern}: no such folder")
        for path in paths:
            named = (path / "status.json").is_file()
            files = [path / "status.json"] if named else sorted(path.glob("**/status.json"))
            directories |= dict.fromkeys((file.parent for file in files), named)
    runs, unread = list[Run](), list[UserError]()
    for path, named in directories.items():
        try:
            runs += [run] if (run := _read_whole(path)) is not None else []
        except UserError as error:
            if named:
                raise
            unread.append(error)
    leave_out(unread, len(runs))
    if not runs:
        raise UserError(f"there is no run in {', '.join(patterns)}")
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.state == "done", run.status.get("started", ""))):
        newest[run.status.get("config_hash", str(run.path))] = run
    kept = set(map(id, newest.values()))
    runs, repeated = [run for run in runs if id(run) in kept], len(runs) - len(kept)
    done = [run for run in runs if run.state == "done"]
    return Found(done, [run for run in runs if run.state != "done"], repeated)


def _read_whole(path: Path) -> Run | None:
    """The run in a directory, with all files read that a table shows."""
    run = read_run(path)
    if run is not None and run.state == "done":
        _ = run.result, run.provenance
    return run


def read_run(path: Path) -> Run | None:
    """The run in a directory; None where a job of a sweep has not begun.

    Raises:
        UserError: its files cannot be read.
    """
    if not (path / "config.yaml").is_file():
        return None
    run = RunDirectory(path)
    return Run(path, read_config(path), run.choices(), run.status())


_HOW = ("root", "seed", "batch_size", "eval_batch_size", "minibatches_per_block", "drop_last")
"""Keys of ``data`` that say nothing of which rows there are to test on."""


def other_rows(runs: Iterable[Run]) -> list[str]:
    """A note for each configuration of the data whose test rows were not the same in all runs, by their checksums: the
    file has changed, or the code that makes them."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        data = {key: value for key, value in run.config.get("data", {}).items() if key not in _HOW}
        if (test := run.provenance.get("data", {}).get("checksums", {}).get("test")) is not None:
            found.setdefault(json.dumps(data, sort_keys=True, default=str), {}).setdefault(test, []).append(run)
    return [
        "not to be compared, since their test data differ, in rows or their values, though not in configuration: "
        + "; ".join(f"{len(alike)} as {alike[0].path}" for alike in several.values())
        for several in found.values()
        if len(several) > 1
    ]
