"""One training run from its configuration to its report.

    check -> data -> run directory -> fit -> evaluate -> pictures -> result.json, report.html

Whatever can be wrong with configuration or data shows before the run directory is made; from then on
``status.json`` tells what became of the run.
"""

import contextlib
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer, seed_everything

from attelbo.building import Spec, build
from attelbo.data import ImageDataModule
from attelbo.errors import ConfigError, TrainingDiverged, UserError
from attelbo.experiments.evaluation import measure
from attelbo.experiments.provenance import git_tag, provenance
from attelbo.experiments.rundir import RunDirectory, State, config_hash
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.tables import print_result
from attelbo.models import Model, build_data, build_model, checkpoint_of, count_parameters, load_weights, read_config
from attelbo.training.callbacks import Pictures
from attelbo.training.interruption import Interrupted, stoppable
from attelbo.training.loggers import build_loggers, finish_loggers, rewind_loggers
from attelbo.training.replicas import Seat

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    run_dir: Path
    state: State
    exit_code: int
    """0 done, 1 failed, 128 + the signal that stopped it."""


def verify(config: Config) -> str:
    """Build everything that needs no data file; a line about it.

    Raises:
        ConfigError: a part cannot be built from its arguments, or does not fit its neighbours.
    """
    model, data = compose(config)
    shape = " x ".join(map(str, data.spec.shape))
    return (
        f"{type(model).__name__}, {count_parameters(model):,} parameters, {data.spec.name} ({shape}, {data.spec.kind})"
    )


def compose(config: Config) -> tuple[Model, ImageDataModule]:
    """Model and data of a configuration; the weights are a function of the seed.

    Raises:
        ConfigError: they, or what will be needed later, cannot be built from the arguments.
    """
    _evaluation(config)
    _try("optimizer", config["optimizer"], [torch.zeros(1, requires_grad=True)])
    _try("scheduler", config["scheduler"])
    for name, node in config["callbacks"].items():
        _try(f"callbacks.{name}", node)
    seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    return build_model(config, data), data


def _try(key: str, node: Spec, *given: Any) -> None:
    """Build a node whose object is needed only later, so that what is wrong with it shows now."""
    try:
        build(node, *given)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())} [{node['_target_']}]") from error


def _evaluation(config: Config) -> Evaluation:
    try:
        return Evaluation(**config["evaluation"])
    except ValueError as error:
        raise ConfigError(f"evaluation.{error}") from error


def train(
    config: Config, overrides: list[str], choices: dict[str, str], sweep: Path | None, seat: Seat | None = None
) -> Outcome:
    """Run one configuration, in a new directory or, as a job of a sweep or with ``ckpt=auto``, in the one
    that it had before: what is done is not done again, what was interrupted goes on.

    Args:
        config: resolved, plain containers, checked.
        overrides: the words of the command line, for the record.
        choices: group -> choice, for the record.
        sweep: the sweep's directory, for a job of one.
        seat: the run's place among replicas, if it is one; their results are shown together by whoever runs them.

    Raises:
        UserError: something the user gave is wrong; nothing has been written.
    """
    model, data = compose(config)
    data.prepare_data()
    if seat is not None:
        data.share(seat.group.loaded)
    data.setup()
    if rank_zero_only.rank:  # pyright: ignore[reportFunctionMemberAccess] - started by torchrun or srun: rank 0 looks after the directory
        return _follow(config, model, data, sweep)
    given = _checked(_given_checkpoint(config), model)
    _trainer(RunDirectory(_parent(config)), config, [], seat)  # a wrong setting shows before a directory is made
    run = _place(config, sweep)
    if run.status()["state"] == "done":
        sys.stdout.write(f"{run.path} is done already\n")
        _show(run)
        return Outcome(run.path, "done", 0)
    checkpoint = _checked(run.resumable, model) or given
    with run.locked():
        run.describe(config, overrides, choices, provenance(config, overrides, data.checksums()))
        run.begin(config)
        with _environment(run):
            group = sweep.name if sweep else run.path.parent.name
            outcome = _run(run, config, model, data, checkpoint, group, seat)
    if outcome.state == "done" and seat is None:
        _show(run)
    return outcome


@contextlib.contextmanager
def _environment(run: RunDirectory) -> Iterator[None]:
    """Tell the processes that Lightning starts which run they belong to, and take back what it tells them itself:
    the next job of a sweep would else count itself among them and start none of its own.
    """
    before = set(os.environ)
    os.environ["ATTELBO_RUN_DIR"] = str(run.path.absolute())
    try:
        yield
    finally:
        told = {"ATTELBO_RUN_DIR", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"}
        for name in told & set(os.environ) - before:
            del os.environ[name]


def join(run_dir: Path) -> Outcome:
    """The part of a process that Lightning started to help with a run: train, write nothing."""
    config = read_config(run_dir)
    model, data = compose(config)
    data.setup()
    run = RunDirectory(run_dir)
    return _help_to_fit(run, config, model, data, run.resumable or _given_checkpoint(config))


def _follow(config: Config, model: Model, data: ImageDataModule, sweep: Path | None) -> Outcome:
    if sweep is not None:
        run = RunDirectory(sweep / config_hash(config))
    else:
        before = RunDirectory.latest(_parent(config), config) if config["ckpt"] == "auto" else None
        run = before or RunDirectory(_parent(config) / "rank")  # its name comes from rank 0 once training begins
    if run.status()["state"] == "done":
        return Outcome(run.path, "done", 0)
    return _help_to_fit(run, config, model, data, run.resumable or _given_checkpoint(config))


def _help_to_fit(
    run: RunDirectory, config: Config, model: Model, data: ImageDataModule, checkpoint: Path | None
) -> Outcome:
    trainer = _trainer(run, config, [], seat=None)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Interrupted as interrupted:
        return Outcome(run.path, "interrupted", interrupted.exit_code)
    return Outcome(run.path, "done", 0)


# -- where ---------------------------------------------------------------------------------------------


def _parent(config: Config) -> Path:
    return Path(config["paths"]["output_dir"]) / config["name"]


def _place(config: Config, sweep: Path | None) -> RunDirectory:
    """The run's directory: a new one, or the one that it had before."""
    if sweep is not None:
        return RunDirectory.job(sweep, config)
    before = RunDirectory.latest(_parent(config), config) if config["ckpt"] == "auto" else None
    return before or RunDirectory.new(_parent(config), config)


def _given_checkpoint(config: Config) -> Path | None:
    if config["ckpt"] in (None, "auto"):
        return None
    path = Path(config["ckpt"])
    if not path.is_file():
        raise ConfigError(
            f"ckpt: no such file: {path}; ckpt=auto goes on with the interrupted run of this configuration"
        )
    return path


def _checked(checkpoint: Path | None, model: Model) -> Path | None:
    """The same path, if it is a checkpoint of this model; the Trainer will read it again."""
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return checkpoint


def _show(run: RunDirectory) -> None:
    result = run.read("result.json")
    if result is not None:
        print_result(result, run.path)


# -- the run itself ------------------------------------------------------------------------------------


def _run(
    run: RunDirectory,
    config: Config,
    model: Model,
    data: ImageDataModule,
    checkpoint: Path | None,
    group: str,
    seat: Seat | None,
) -> Outcome:
    """Fit, evaluate, draw and report; the status is right at every moment, whatever happens."""
    tags = [*config["tags"], *([tag] if (tag := git_tag()) else [])]
    exit_code, error, seconds = 1, None, 0.0
    loggers = build_loggers(
        config["logger"], run_dir=run.path, name=config["name"], group=group, job_type="train", tags=tags, config=config
    )
    try:
        with stoppable():
            trainer = _trainer(run, config, loggers, seat)
            if checkpoint is not None:
                rewind_loggers(loggers, _step_of(checkpoint))
            if seat is not None:
                seat.gather()
            started = time.perf_counter()
            try:
                trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            finally:
                seconds = time.perf_counter() - started
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the other processes end here; what follows is done alone
            _conclude(run, config, model, data, trainer, run.status()["train_seconds"] + seconds)
        exit_code = 0
        return Outcome(run.path, "done", 0)
    except TrainingDiverged as diverged:
        error = traceback.format_exc()
        sys.stderr.write(f"error: {diverged} [{run.path}]\n")
        return Outcome(run.path, "failed", 1)
    except Interrupted as interrupted:
        exit_code = interrupted.exit_code
        sys.stderr.write(f"{interrupted}; ckpt=auto goes on from here: {run.path}\n")
        return Outcome(run.path, "interrupted", exit_code)
    except UserError:
        error, exit_code = traceback.format_exc(), 2
        raise
    except BaseException:
        error = traceback.format_exc()
        raise
    finally:
        finish_loggers(loggers, exit_code)
        run.end(_state(exit_code), seconds, error)
        _report(run, must=exit_code == 0)


def _report(run: RunDirectory, must: bool) -> None:
    """Write report.html; for a run that failed as well, whose own error is then the one to be told."""
    from attelbo.experiments.report import write_report

    with contextlib.nullcontext() if must else contextlib.suppress(Exception):
        write_report(run.path)


def _state(exit_code: int) -> State:
    return "done" if exit_code == 0 else "interrupted" if exit_code > 128 else "failed"


def _conclude(
    run: RunDirectory, config: Config, model: Model, data: ImageDataModule, trainer: Trainer, train_seconds: float
) -> None:
    """Evaluate the chosen weights, draw what they do and write the result."""
    device, settings = trainer.strategy.root_device, _evaluation(config)
    if any(trainer.checkpoint_callbacks):
        checkpoint = checkpoint_of(run.path, settings.checkpoint)
        load_weights(model, checkpoint)
        which = checkpoint.stem
    else:
        which = "last"
    result = measure(model, data, "test", settings, config["seed"], device)
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, Pictures):
            callback.publish(trainer, model)
    stepper: Any = model.stepper
    result |= {
        "checkpoint": which,
        "epochs": trainer.current_epoch,
        "steps": stepper.step,
        "parameters": count_parameters(model),
        "seconds": {"train": train_seconds, **result["seconds"]},
        "samples_per_second": stepper.rows_seen / train_seconds if train_seconds else math.nan,
        # The seconds of training are those of all replicas together, of which this is one.
        "replicas": len(stepper.seat.group.seats) if stepper.seat else 1,
    }
    for logger in trainer.loggers:
        logger.log_metrics(result["metrics"], stepper.step)
    run.write("result.json", result)


def _trainer(run: RunDirectory, config: Config, loggers: list[Any], seat: Seat | None) -> Trainer:
    return build(
        config["trainer"],
        run_dir=run.path,
        seed=config["seed"],
        callbacks=config["callbacks"],
        loggers=loggers,
        seat=seat,
    )


def _step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
