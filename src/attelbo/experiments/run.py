"""One training run from its configuration to its report.

    check -> data -> run directory -> fit -> evaluate -> pictures -> result.json, report.html

Errors in configuration or data show before the run directory is made; from then on ``status.json`` has the
state of the run.
"""

import contextlib
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from attelbo.data import ResidentDataModule
from attelbo.data.module import Splits
from attelbo.errors import TrainingDiverged, UserError
from attelbo.experiments.assembly import Config, assemble, evaluation_of, parent_of, trainer_of
from attelbo.experiments.boards.telling import JobType, run_info
from attelbo.experiments.evaluation import Conditions, evaluate_model
from attelbo.experiments.provenance import provenance
from attelbo.experiments.resuming import Start, directory_of, take_up, with_threads
from attelbo.experiments.rundir import FINISHED, RunDirectory, State, given_checkpoint, locked
from attelbo.experiments.starting import init_of, take_weights
from attelbo.experiments.sweeps.pruning import watch
from attelbo.experiments.tables import print_result
from attelbo.files import read_config, writing
from attelbo.models import Model, checkpoint_of, count_parameters, load_weights
from attelbo.training import attach_run, check_steps, planned_steps
from attelbo.training.callbacks import Exhibit, Pruned, check_finite, chosen_by
from attelbo.training.interruption import Interrupted, stoppable
from attelbo.training.loggers import build_loggers, finish_loggers, log_result, log_work, rewind_loggers
from attelbo.training.replicas import Seat
from attelbo.training.throughput import rates_of
from attelbo.training.time_limit import out_of_time


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    run_dir: Path
    state: State
    exit_code: int
    """0 done, 1 failed, 128 + the signal that stopped it."""
    stopped_by: TrainingDiverged | Interrupted | None = None
    """What ended it too early; a line on the standard error has said so."""

    @property
    def metrics(self) -> dict[str, float]:
        """Its metrics, as in ``result.json``; empty if it was not measured."""
        return (RunDirectory(self.run_dir).read("result.json") or {}).get("metrics", {})


def train(
    config: Config,
    overrides: list[str],
    choices: Mapping[str, str | None],
    sweep: Path | None,
    seat: Seat | None = None,
    loaded: dict[str, Splits] | None = None,
    job_type: JobType = "train",
    directory: RunDirectory | None = None,
) -> Outcome:
    """Run one configuration, in a new directory or, as a job of a sweep or with ``ckpt=auto``, in the one that it had
    before: a run that is done is not run again, one that was interrupted is resumed.

    Args:
        config: resolved, plain containers, checked.
        overrides: the words of the command line, for the record.
        choices: group -> choice, for the record.
        sweep: the sweep's directory, for a job of one.
        seat: the run's place among replicas, if it is one; the caller shows their results together.
        loaded: data that jobs of this process share.
        job_type: what the run is for, as the loggers are told.
        directory: the run's, where it is neither a new one nor that of a job.

    Raises:
        UserError: something the user gave is wrong. Nothing has been written then or, where it shows only once the run
            has begun, such as a server of W&B that does not answer, the run is marked as failed.
    """
    model, data = assemble(config)
    data.prepare_data()
    if seat is not None:
        loaded = seat.group.loaded
    if loaded is not None:
        data.share(loaded)
    data.setup()
    if rank_zero_only.rank:  # pyright: ignore[reportFunctionMemberAccess] - started by torchrun or srun: rank 0 looks after the directory
        return _follow(config, model, data, sweep)
    trainer = trainer_of(config, seat)
    given = take_up(given_checkpoint(config), model, trainer, check_steps(trainer, model, data))
    run = directory or directory_of(config, sweep)
    if run and run.resumable:
        source = (run.read("provenance.json") or {}).get("init")
    else:
        source = take_weights(init_of(config), model)
    run = run or RunDirectory.new(parent_of(config), config)
    if ended := _ended(run):
        return ended
    with writing(run.path), locked(run.path):
        if ended := _ended(run):  # by the process that held the lock until now
            return ended
        start = take_up(run.resumable, model, trainer) or given
        asked, config = config, with_threads(config, run, model, data, trainer)
        origin = provenance(config, overrides, data.checksums()) | ({"init": source} if source else {})
        run.describe(config, overrides, choices, origin)
        data.save_state(run.path)
        run.begin(asked)
        with run.announced():
            outcome = _run(run, config, model, data, trainer, start, job_type, seat)
    if outcome.state == "done" and seat is None:
        print_result(run.read("result.json") or {}, run.path)
    return outcome


def join(run_dir: Path) -> Outcome:
    """The part of a process that Lightning started as a further rank of a run: train, write nothing."""
    config = read_config(run_dir)
    model, data = assemble(config)
    data.setup()
    run = RunDirectory(run_dir)
    return _help_to_fit(run, config, model, data)


def _follow(config: Config, model: Model, data: ResidentDataModule, sweep: Path | None) -> Outcome:
    # Rank 0 names a new one once training begins.
    run = directory_of(config, sweep) or RunDirectory(parent_of(config) / "rank")
    if (state := run.status()["state"]) in FINISHED:
        return Outcome(run.path, state, 0)
    return _help_to_fit(run, config, model, data)


def _help_to_fit(run: RunDirectory, config: Config, model: Model, data: ResidentDataModule) -> Outcome:
    """Train beside rank 0, which alone holds the directory's lock. What is read here without it is whole, since every
    file is replaced at once, and is what rank 0 reads: it writes the next checkpoint, and that the run is done, only
    after steps that all ranks take together, and nobody else writes while it holds the lock. (Where another process
    finishes the run at the very moment that this command begins, rank 0 ends, and the launcher with it the others.)
    """
    checkpoint, trainer = run.resumable or given_checkpoint(config), attach_run(trainer_of(config), run.path)
    with_threads(config, run, model, data, trainer)
    start = take_up(checkpoint, model, trainer, None if checkpoint == run.resumable else planned_steps(trainer, data))
    watch(trainer, run, start.step if start else -1)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Pruned:
        return Outcome(run.path, "pruned", 0)
    except Interrupted as interrupted:
        return Outcome(run.path, "interrupted", interrupted.exit_code)
    return Outcome(run.path, "done", 0)


def _ended(run: RunDirectory) -> Outcome | None:
    """Show and return the outcome of a run that is finished and not run again; None for any other."""
    if (state := run.status()["state"]) not in FINISHED:
        return None
    sys.stdout.write(f"{run.path} is {state} already\n")
    if result := run.read("result.json"):
        print_result(result, run.path)
    return Outcome(run.path, state, 0)


# -- the run itself ------------------------------------------------------------------------------------


def _run(
    run: RunDirectory,
    config: Config,
    model: Model,
    data: ResidentDataModule,
    trainer: Trainer,
    start: Start | None,
    job_type: JobType,
    seat: Seat | None,
) -> Outcome:
    """Fit, evaluate, draw and report; the recorded status is right at every moment, whatever happens."""
    exit_code, error, seconds, state, stopped_by = 1, None, None, "failed", None
    loggers: list[Logger] = []
    try:
        loggers += build_loggers(config["logger"], run_info(run, config, job_type))
        with stoppable():
            attach_run(trainer, run.path, loggers)
            step = start.step if start else -1  # a run without a checkpoint begins anew
            rewind_loggers(loggers, step)
            watch(trainer, run, step)
            if seat is not None:
                seat.gather()
            try:
                trainer.fit(model, datamodule=data, ckpt_path=start and start.checkpoint, weights_only=True)
            finally:
                seconds = getattr(model.stepper, "seconds", None)  # it has none where the training could not begin
            if seat is not None:
                seat.rest()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the other processes end here; what follows is done alone
            _conclude(run, config, model, data, trainer, seconds or 0.0)
        exit_code, state = 0, "done"
    except Pruned:
        exit_code, state = 0, "pruned"
    except TrainingDiverged as diverged:
        error, stopped_by = traceback.format_exc(), diverged
        sys.stderr.write(f"error: {diverged} [{run.path}]\n")
    except Interrupted as interrupted:
        exit_code, state, stopped_by = interrupted.exit_code, "interrupted", interrupted
        # One that began with another run's checkpoint is not what ckpt=auto looks for.
        ckpt = "auto" if given_checkpoint(config) is None else run.resumable or config["ckpt"]
        sys.stderr.write(f"{interrupted}; ckpt={ckpt} goes on from here: {run.path}\n")
    except UserError:
        error, exit_code = traceback.format_exc(), 2
        raise
    except BaseException:
        error = traceback.format_exc()
        raise
    finally:
        with contextlib.ExitStack() as ending:  # the last one first, each even if another fails
            ending.callback(_report, run, must=exit_code == 0)
            ending.callback(run.end, state, seconds, error)
            ending.callback(finish_loggers, loggers, exit_code, state)
    return Outcome(run.path, state, exit_code, stopped_by)


def _report(run: RunDirectory, must: bool) -> None:
    """Write report.html, also for a run that failed: then no error here may hide the run's own."""
    from attelbo.experiments.report import write_report

    with contextlib.nullcontext() if must else contextlib.suppress(Exception):
        write_report(run.path)


def _conclude(
    run: RunDirectory, config: Config, model: Model, data: ResidentDataModule, trainer: Trainer, train_seconds: float
) -> None:
    """Evaluate the chosen weights, make the exhibits and write the result."""
    device, settings = trainer.strategy.root_device, evaluation_of(config)
    try:
        checkpoint = checkpoint_of(run.path, settings.checkpoint)
    except UserError:
        if settings.checkpoint not in ("best", "last"):
            raise
        which = "last"  # none was saved: the weights that the model has
    else:
        load_weights(model, checkpoint)
        which = checkpoint.stem
    conditions = Conditions("test", settings, config["seed"], device)
    result = evaluate_model(model, data, conditions, Path(config["paths"]["output_dir"]), config)
    check_finite(model, trainer.current_epoch, "test/loss", result["metrics"].get("test/loss", 0.0))
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, Exhibit):
            callback.publish(trainer, model)
    stepper: Any = model.stepper
    together = stepper.seat.trains_with if stepper.seat else 1
    train_seconds /= together  # the share of one of the replicas in a stacked model
    result |= {
        "checkpoint": which,
        "monitor": chosen_by(trainer, which),
        "epochs": trainer.current_epoch,
        "steps": stepper.step,
        "parameters": count_parameters(model),
        "seconds": {"train": train_seconds, **result["seconds"]},
        **rates_of(stepper.rows_seen, stepper.row_tokens, train_seconds),
        "replicas": together,
        "out_of_time": out_of_time(trainer),
        "stacked_with": stepper.seat.names if stepper.seat else [],
    }
    for name, write in result.pop("drawn").items():
        log_work(trainer.loggers, name, write(run.path / "media" / f"{name}.png"), stepper.step)
    log_result(trainer.loggers, result, stepper.step)
    run.write("result.json", result)
