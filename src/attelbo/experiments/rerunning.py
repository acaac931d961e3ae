"""``attelbo rerun``: repeat a run from its own directory, and compare the results.

The run is repeated from its ``config.yaml`` in a new directory beside it, ``<run>-rerun``; one that was trained in one
stacked model with others is repeated with them, in ``<sweep>-rerun``. Differences in code, versions or hardware are
told before, those in the numbers afterwards; other data are an error.
"""

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from attelbo.checking import naming
from attelbo.data import ResidentDataModule
from attelbo.data.module import Splits
from attelbo.data.moving import moved, where_now
from attelbo.errors import DataError, UserError
from attelbo.experiments import replicas
from attelbo.experiments import run as runs
from attelbo.experiments.assembly import Config, assemble, evaluation_of
from attelbo.experiments.configuration import check_again
from attelbo.experiments.evaluation import Conditions, evaluate_model
from attelbo.experiments.provenance import differences, provenance
from attelbo.experiments.rundir import RunDirectory, config_hash
from attelbo.experiments.terminal import terminal
from attelbo.experiments.trained import pick_device
from attelbo.files import read_config, why_not_written
from attelbo.models import Model, checkpoint_of, load_weights
from attelbo.training.threads import use_threads

_COUNTS = ("epochs", "steps", "parameters")
"""Further numbers of a result that must be the same."""

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Metric -> (step, value)."""


class Change(NamedTuple):
    """A number that is not the same."""

    name: str
    then: float | None
    now: float | None

    @property
    def relative(self) -> float:
        """The size of the difference over that of the larger number; infinite where there is only one."""
        if self.then is None or self.now is None:
            return math.inf
        return abs(self.now - self.then) / max(abs(self.now), abs(self.then))


def rerun(run: str, training: bool = True, data_dir: str | None = None) -> int:
    """Repeat a finished run with the same seed on the same data, and compare the numbers, bit for bit.

    Args:
        run: the run directory, or a folder, for its newest run.
        training: whether to train again; else the weights that the run was measured with are measured again.
        data_dir: where the data are now, if not where they were.

    Returns:
        The exit code: 0 all numbers are the same, 1 some are not; that of the training where it did not end.

    Raises:
        UserError: not a run directory, a run that is not done, one whose companions in a stacked model are gone, or
            other data.
    """
    first = RunDirectory.find(Path(run))
    if (state := first.status()["state"]) != "done":
        raise UserError(f"{first.path} is {state}, not done: there is nothing to compare a repetition with")
    config = _config_of(first, data_dir)
    with naming(first.path / "config.yaml"), where_now():
        model, data = assemble(config)
    loaded = _same_data(first, config, data)
    _tell_origins(first, config)
    if not training:
        return _compare({"metrics": _evaluated(first, config, model, data)}, first, None)
    again, code = _train(first, config, loaded)
    if code != 0:
        return code
    return _compare(_result_of(again), first, again)


# -- what is repeated ----------------------------------------------------------------------------------


def _config_of(run: RunDirectory, data_dir: str | None) -> Config:
    """The configuration as it was given: ``trainer.threads`` is ``auto`` again where it was measured, as the hash
    tells.

    Raises:
        ConfigError: it is not as it was when the run began.
    """
    config = read_config(run.path)
    check_again(config, run.path / "config.yaml")
    if config_hash(config) != run.status().get("config_hash"):
        config["trainer"]["threads"] = "auto"
    config["data"] = moved(config["data"], data_dir)
    return config


def _same_data(run: RunDirectory, config: Config, data: ResidentDataModule) -> dict[str, Splits]:
    """The rows of the data module, loaded.

    Raises:
        DataError: they are not those of the run.
    """
    loaded: dict[str, Splits] = {}
    with where_now():
        data.prepare_data()
        data.share(loaded)
        data.setup()
    recorded = _recorded(run)["data"]["checksums"]
    for split, now in data.checksums().items():
        if (then := recorded.get(split)) != now:
            raise DataError(
                f"{run.path}: its {split} data are no longer what they were: SHA-256 {then} then, {now} now "
                f"({config['data']['name']} in {config['data'].get('root', 'attelbo itself')})"
            )
    return loaded


def _recorded(run: RunDirectory) -> dict[str, Any]:
    recorded = run.read("provenance.json")
    if recorded is None:
        raise UserError(f"{run.path} has no provenance.json: it is not known what it was made with")
    return recorded


def _result_of(run: RunDirectory) -> dict[str, Any]:
    if (result := run.read("result.json")) is None:
        raise UserError(f"{run.path} has no result.json: there is nothing to compare a repetition with")
    return result


def _tell_origins(run: RunDirectory, config: Config) -> None:
    changed = differences(_recorded(run), provenance(config, [], {}))
    for line in changed or ["code, versions and hardware are those of the run"]:
        sys.stdout.write(f"{line}\n")


# -- the repetition ------------------------------------------------------------------------------------


def _train(first: RunDirectory, config: Config, loaded: dict[str, Splits]) -> tuple[RunDirectory, int]:
    """The repetition and its exit code."""
    names = _result_of(first).get("stacked_with", [])
    if not names:
        again = RunDirectory(_beside(first.path, {".": first}))
        return again, runs.train(config, first.words(), first.choices(), None, loaded=loaded, directory=again).exit_code
    members = [RunDirectory(first.path.with_name(name)) for name in names]
    for member in members:
        if member.status()["state"] != "done":
            raise UserError(f"{first.path} was trained in one stacked model with {member.path}, which is not done now")
    sweep, root = _beside(first.path.parent, dict(zip(names, members, strict=True))), config["data"].get("root")
    code = replicas.train_again(
        [(_config_of(member, root), member.words(), member.choices()) for member in members], sweep
    )
    return RunDirectory(sweep / first.path.name), code


def _beside(path: Path, originals: Mapping[str, RunDirectory]) -> Path:
    """``<path>-rerun``, or ``-rerun-2`` and so on where that is done. The directory of each run in it, by its name
    there, is given the configuration of its original, as if it had begun, so that it takes the measured threads.

    Raises:
        UserError: it cannot be written.
    """
    folders = (path.with_name(f"{path.name}-rerun{number}") for number in chain([""], map("-{}".format, count(2))))
    folder = next(f for f in folders if any(RunDirectory(f / name).status()["state"] != "done" for name in originals))
    if why := why_not_written(folder / "config.yaml"):
        raise UserError(f"{folder} cannot be written: {why}; copy {path} to where it can")
    for name, original in originals.items():
        if not (config := folder / name / "config.yaml").is_file():
            config.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original.path / "config.yaml", config)
    return folder


def _evaluated(run: RunDirectory, config: Config, model: Model, data: ResidentDataModule) -> dict[str, float]:
    """The metrics of the weights that the run was measured with."""
    data.load_state(run.path)
    load_weights(model, checkpoint_of(run.path, _result_of(run).get("checkpoint", "best")))
    use_threads(read_config(run.path)["trainer"]["threads"])
    device = pick_device("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
    conditions = Conditions("test", evaluation_of(config), config["seed"], device)
    return evaluate_model(model, data, conditions, Path(config["paths"]["output_dir"]), config)["metrics"]


# -- the comparison ------------------------------------------------------------------------------------


def _compare(result: Mapping[str, Any], first: RunDirectory, again: RunDirectory | None) -> int:
    """Print what differs, and write it into the repetition's directory, if there is one; the exit code."""
    recorded = _result_of(first)
    numbers = list(_changes(recorded["metrics"], result["metrics"]))
    told = f"{len(recorded['metrics'])} metrics"
    curves: list[Change] = []
    if again is not None:
        counts = [{name: each.get(name) for name in _COUNTS} for each in (recorded, result)]
        numbers += _changes(*counts)
        then, now = first.curves(), again.curves()
        curves = list(_first_changes(then, now))
        told += f" and {len(then)} curves"
    where = "" if again is None else f" [{again.path}]"
    if not numbers and not curves:
        sys.stdout.write(f"the same, bit for bit: {told}{where}\n")
    else:
        _show(numbers, curves)
        sys.stdout.write(f"not the same: {len(numbers) + len(curves)} of {told} differ{where}\n")
    if again is not None:
        changes = [change._asdict() | {"relative": change.relative} for change in (*numbers, *curves)]
        again.write("rerun.json", {"of": str(first.path), "equal": not changes, "differences": changes})
    return int(bool(numbers or curves))


def _changes(then: Mapping[str, float | None], now: Mapping[str, float | None]) -> Iterator[Change]:
    for name in dict.fromkeys((*then, *now)):
        if not _equal(a := then.get(name), b := now.get(name)):
            yield Change(name, a, b)


def _first_changes(then: Curves, now: Curves) -> Iterator[Change]:
    """The first step at which each curve differs, if it does."""
    for name in dict.fromkeys((*then, *now)):
        a, b = dict(then.get(name, [])), dict(now.get(name, []))
        for step in sorted({*a, *b}):
            if not _equal(a.get(step), b.get(step)):
                yield Change(f"{name}, from step {step:,} on", a.get(step), b.get(step))
                break


def _equal(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def _show(*groups: Sequence[Change]) -> None:
    table = Table(box=None)
    table.add_column(no_wrap=True)
    for name in ("then", "now", "relative difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in (change for group in groups for change in group):
        values = ("-" if value is None else f"{value:.9g}" for value in (change.then, change.now))
        table.add_row(change.name, *values, f"{change.relative:.1e}")
    terminal(120).print(table)
