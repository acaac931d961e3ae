"""A run that was stopped anywhere and went on is, bit for bit, the run that was not stopped."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from attelbo.experiments import run
from attelbo.training import BlockStepper
from compilers import needs_a_compiler
from equal_runs import assert_equal_runs, metrics, same
from forked import Forked, command

# Three epochs of 3 blocks; everything that keeps a state of its own takes part.
WORDS = ("trainer.max_epochs=3", "scheduler=cosine", "callbacks=early_stopping")
BLOCKS = 9


@pytest.fixture(scope="module")
def uninterrupted(shared_runs) -> run.Outcome:
    return shared_runs.train(*WORDS)


def signal_at(monkeypatch, block: int, number: signal.Signals) -> None:
    """Send this process a signal during a block, counted from 1 over the whole training."""
    step = BlockStepper.__call__

    def call(self: BlockStepper, rows: Any) -> None:
        step(self, rows)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == block:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(BlockStepper, "__call__", call)


def test_a_run_can_be_repeated(runs, uninterrupted):
    assert_equal_runs(runs.train(*WORDS).run_dir, uninterrupted.run_dir)


# The first block, inside and at the end of an epoch, the first of the next, the last but one, the last of all.
@pytest.mark.parametrize("block", [1, 2, 3, 4, 6, 8, 9])
def test_stopped_by_sigterm_and_resumed(runs, uninterrupted, monkeypatch, block, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, block, signal.SIGTERM)
        stopped = runs.train(*WORDS)
    assert (stopped.state, stopped.exit_code) == ("interrupted", 143)
    status = run.RunDirectory(stopped.run_dir).status()
    assert status["state"] == "interrupted"
    assert "error" not in status
    assert not (stopped.run_dir / "result.json").exists()
    assert "ckpt=auto goes on from here" in capsys.readouterr().err

    resumed = runs.train(*WORDS, "ckpt=auto")
    assert resumed == run.Outcome(stopped.run_dir, "done", 0)
    assert run.RunDirectory(stopped.run_dir).status()["attempts"] == 2
    assert_equal_runs(resumed.run_dir, uninterrupted.run_dir)


# Epochs of 7 steps, in blocks of 4 and 3, of passes of 10 steps.
CUT = ("trainer.steps_per_epoch=7", *WORDS)


@pytest.fixture(scope="module")
def cut(shared_runs) -> run.Outcome:
    return shared_runs.train("name=cut", *CUT)


def validated(run_dir: Path) -> list[int]:
    """The steps of the validations."""
    return [step for step, _ in run.RunDirectory(run_dir).curves()["val/loss"]]


def test_a_validation_after_every_so_many_steps(cut):
    assert validated(cut.run_dir) == [7, 14, 21]
    result = json.loads((cut.run_dir / "result.json").read_text())
    assert (result["epochs"], result["steps"], result["out_of_time"]) == (3, 21, False)


@pytest.mark.parametrize("block", [1, 3, 6])
def test_epochs_of_steps_go_on_where_they_were(runs, cut, monkeypatch, block):
    with monkeypatch.context() as patch:
        signal_at(patch, block, signal.SIGTERM)
        assert runs.train("name=cut", *CUT).state == "interrupted"
    resumed = runs.train("name=cut", *CUT, "ckpt=auto")
    assert_equal_runs(resumed.run_dir, cut.run_dir)


# -- a limit in time -----------------------------------------------------------------------------------

LIMITED = ("trainer.max_time=00:00:01:00", "trainer.max_epochs=50", "callbacks=early_stopping")


def clock_of_blocks(monkeypatch, seconds: float) -> None:
    """So many seconds for every optimizer step, and none for anything else."""
    monkeypatch.setattr(BlockStepper, "seconds", property(lambda self: self.step * seconds))


def test_a_training_whose_time_is_up_is_validated_saved_and_evaluated(runs, monkeypatch, capsys):
    clock_of_blocks(monkeypatch, 60 / 13)  # up within the second epoch of blocks of 4, 4 and 2 steps
    outcome = runs.train(*LIMITED)
    assert outcome.state == "done"
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert (result["steps"], result["epochs"], result["out_of_time"]) == (14, 2, True)
    assert validated(outcome.run_dir) == [10, 14]
    assert runs.checkpoint(outcome)["global_step"] == 14
    printed = capsys.readouterr()
    assert "trainer.max_time: ended after 14 of 500 steps" in printed.err
    # Up to there it is the training without a limit.
    monkeypatch.undo()
    free = runs.train("trainer.max_epochs=50", "trainer.max_steps=14", "callbacks=early_stopping")
    assert same(runs.checkpoint(outcome)["state_dict"], runs.checkpoint(free)["state_dict"])


def test_time_before_an_interruption_counts(runs, monkeypatch):
    clock_of_blocks(monkeypatch, 60 / 13)
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        assert runs.train(*LIMITED).state == "interrupted"
    resumed = runs.train(*LIMITED, "ckpt=auto")
    assert json.loads((resumed.run_dir / "result.json").read_text())["steps"] == 14
    whole = runs.train(*LIMITED)
    assert_equal_runs(resumed.run_dir, whole.run_dir)


def test_one_killed_after_its_time_was_up_trains_no_more(runs, monkeypatch):
    clock_of_blocks(monkeypatch, 60 / 13)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_conclude", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.train(*LIMITED)
    result = json.loads((runs.train(*LIMITED, "ckpt=auto").run_dir / "result.json").read_text())
    assert (result["steps"], result["epochs"], result["out_of_time"]) == (14, 2, True)


def test_one_that_began_with_anothers_checkpoint_is_another_run(runs, uninterrupted, monkeypatch, capsys):
    words = (*WORDS, "trainer.max_epochs=4")
    with monkeypatch.context() as patch:
        signal_at(patch, 11, signal.SIGTERM)
        stopped = runs.train(*words, f"ckpt={uninterrupted.run_dir / 'checkpoints' / 'last.ckpt'}").run_dir
    last = stopped / "checkpoints" / "last.ckpt"
    assert f"ckpt={last} goes on from here" in capsys.readouterr().err
    assert runs.train(*words, "ckpt=auto").run_dir != stopped  # it begins with nothing
    assert runs.train(*words, f"ckpt={last}").state == "done"


def test_the_checkpoint_that_a_run_began_with_may_go_while_it_trains(
    runs, uninterrupted, monkeypatch, tmp_path, capsys
):
    given = shutil.copyfile(uninterrupted.run_dir / "checkpoints" / "last.ckpt", tmp_path / "given.ckpt")
    with monkeypatch.context() as patch:
        signal_at(patch, 11, signal.SIGTERM)
        step = BlockStepper.__call__
        patch.setattr(BlockStepper, "__call__", lambda *each: (given.unlink(missing_ok=True), step(*each)))
        stopped = runs.train(*WORDS, "trainer.max_epochs=4", f"ckpt={given}")
    assert (stopped.state, stopped.exit_code) == ("interrupted", 143)
    assert "last.ckpt goes on from here" in capsys.readouterr().err


def test_stopped_again_and_again(runs, uninterrupted, monkeypatch):
    for block in (2, 5, 7):
        with monkeypatch.context() as patch:
            signal_at(patch, block, signal.SIGTERM)
            assert runs.train(*WORDS, "ckpt=auto").state == "interrupted"
    resumed = runs.train(*WORDS, "ckpt=auto")
    assert run.RunDirectory(resumed.run_dir).status()["attempts"] == 4
    assert_equal_runs(resumed.run_dir, uninterrupted.run_dir)


def test_a_resumed_run_reads_its_checkpoint_once_and_builds_one_trainer(runs, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        stopped = runs.train(*WORDS)
    read, built = [], []
    load, build = torch.load, Trainer.__init__

    def count_read(path, *args, **kwargs):
        read.append(Path(path).name)
        return load(path, *args, **kwargs)

    def count_built(self, *args, **kwargs):
        built.append(self)
        build(self, *args, **kwargs)

    monkeypatch.setattr(torch, "load", count_read)
    monkeypatch.setattr(Trainer, "__init__", count_built)
    resumed = runs.train(*WORDS, "ckpt=auto")
    assert resumed == run.Outcome(stopped.run_dir, "done", 0)
    assert read == ["last.ckpt", "best.ckpt"]  # to go on, and to be evaluated
    assert len(built) == 1


def interrupted_evaluation(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal was ignored")


def test_stopped_after_the_training_it_goes_on_with_the_evaluation(runs, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", interrupted_evaluation)
        stopped = runs.train(*WORDS)
    assert (stopped.state, stopped.exit_code) == ("interrupted", 143)
    assert run.RunDirectory(stopped.run_dir).status()["state"] == "interrupted"
    assert_equal_runs(runs.train(*WORDS, "ckpt=auto").run_dir, uninterrupted.run_dir)


def test_what_another_process_ends_just_before_is_not_run_again(runs, monkeypatch, capsys):
    words = ("trainer.max_epochs=1", "ckpt=auto")
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", interrupted_evaluation)
        stopped = runs.train(*words).run_dir

    def late(folder: Path, locked: Any = run.locked) -> Any:
        monkeypatch.setattr(run, "locked", locked)
        assert runs.train(*words).state == "done"  # the other process, which has had the lock
        return locked(folder)

    monkeypatch.setattr(run, "locked", late)
    assert runs.train(*words) == run.Outcome(stopped, "done", 0)
    assert run.RunDirectory(stopped).status()["attempts"] == 2
    assert f"{stopped} is done already" in capsys.readouterr().out


# No epoch is better than the first by so much: three of five are trained.
STOPPING = (
    *("trainer.max_epochs=5", "callbacks=early_stopping"),
    *("callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=1000.0"),
)


def test_what_was_stopped_early_stays_so(runs, shared_runs, monkeypatch):
    whole = shared_runs.train(*STOPPING)
    assert runs.checkpoint(whole)["epoch"] == 2
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", interrupted_evaluation)
        assert runs.train(*STOPPING).state == "interrupted"
    assert_equal_runs(runs.train(*STOPPING, "ckpt=auto").run_dir, whole.run_dir)


def test_a_second_signal_does_not_wait_for_the_end_of_the_block(runs, uninterrupted, monkeypatch):
    step = BlockStepper.__call__

    def call(self: BlockStepper, rows: Any) -> None:
        step(self, rows)
        if self.step == 14:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the signal was ignored")

    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", call)
        assert runs.train(*WORDS).exit_code == 130
    resumed = runs.train(*WORDS, "ckpt=auto")  # from the end of the first epoch
    assert_equal_runs(resumed.run_dir, uninterrupted.run_dir)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR2, 140)])
def test_other_signals_stop_as_well(runs, uninterrupted, monkeypatch, number, code):
    with monkeypatch.context() as patch:
        signal_at(patch, 5, number)
        assert runs.train(*WORDS).exit_code == code
    assert_equal_runs(runs.train(*WORDS, "ckpt=auto").run_dir, uninterrupted.run_dir)


def test_handlers_are_those_from_before(runs, monkeypatch):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    runs.train("trainer.max_epochs=1")
    with monkeypatch.context() as patch:
        signal_at(patch, 1, signal.SIGTERM)
        runs.train("trainer.max_epochs=1")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)] == handlers


def test_a_named_checkpoint_starts_a_new_run_from_there(runs, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 4, signal.SIGTERM)
        stopped = runs.train(*WORDS)
    resumed = runs.train(*WORDS, f"ckpt={stopped.run_dir / 'checkpoints' / 'last.ckpt'}")
    assert resumed.run_dir != stopped.run_dir
    ours, theirs = runs.checkpoint(resumed), runs.checkpoint(uninterrupted)
    assert same(ours["state_dict"], theirs["state_dict"])
    assert metrics(resumed.run_dir) == metrics(uninterrupted.run_dir)


def test_the_time_of_a_killed_run_is_that_of_its_rows(runs, monkeypatch):
    """Blocks take a second each. Two come after the checkpoint: their rows are trained on again, and count once."""
    step, seconds = BlockStepper.__call__, []

    def call(self: BlockStepper, rows: Any) -> None:
        step(self, rows)
        seconds.append(1.0)
        if len(seconds) == 5:
            raise SystemExit

    monkeypatch.setattr(BlockStepper, "__call__", call)
    monkeypatch.setattr(BlockStepper, "_now", lambda _: sum(seconds), raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(run.RunDirectory, "end", lambda *_: None)  # which a process that is killed does not reach
        with pytest.raises(SystemExit):
            runs.train("trainer.max_epochs=3")
    resumed = runs.train("trainer.max_epochs=3", "ckpt=auto").run_dir
    result = json.loads((resumed / "result.json").read_text())
    assert result["seconds"]["train"] == run.RunDirectory(resumed).status()["train_seconds"] == 9.0
    assert result["samples_per_second"] == 300 / 9


def test_a_done_run_is_not_run_again(runs, uninterrupted, shared_runs, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.run_dir.rglob("*")}
    assert shared_runs.train(*WORDS, "ckpt=auto") == run.Outcome(uninterrupted.run_dir, "done", 0)
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.run_dir.rglob("*")} == before
    out = capsys.readouterr().out
    assert "is done already" in out
    assert f"{metrics(uninterrupted.run_dir)['test/elbo']:.2f}" in out


@needs_a_compiler
def test_a_compiled_run_goes_on_with_a_short_minibatch(runs, shared_runs, monkeypatch):
    """What is compiled are whole minibatches, and not the one that comes first."""
    words = ("trainer.compile=true", "data.train_size=85", "trainer.max_epochs=2")  # the third block is a single 5
    uninterrupted = shared_runs.train(*words)
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        assert runs.train(*words).state == "interrupted"
    assert_equal_runs(runs.train(*words, "ckpt=auto").run_dir, uninterrupted.run_dir)


# -- real processes ------------------------------------------------------------------------------------

LONG = ("trainer.max_epochs=20", "trainer.threads=1", "callbacks=early_stopping")


def wait_for_checkpoint(runs, process: Forked) -> Path:
    """Until the first epoch of the process is over; its run directory."""
    while process.poll() is None:
        for checkpoint in runs.folder.glob("*/*/checkpoints/last.ckpt"):
            return checkpoint.parent.parent
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint was written:\n{process.written()}")


@pytest.fixture(scope="module")
def long_run(shared_runs) -> run.Outcome:
    return shared_runs.train(*LONG)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_process_stopped_at_any_moment(runs, long_run, tmp_path, number):
    process = command(["train", *runs.words(*LONG)], tmp_path / "output")
    folder = wait_for_checkpoint(runs, process)
    time.sleep(random.Random().uniform(0, 0.2))
    process.send_signal(number)
    process.wait()
    output = process.written()
    state = run.RunDirectory(folder).status()["state"]
    if number == signal.SIGTERM:
        assert process.returncode == 143, output
        assert state == "interrupted"
        assert "stopped by SIGTERM" in output
    else:
        assert process.returncode == -signal.SIGKILL, output
        assert state == "running"  # it could not say what became of it

    resumed = runs.train(*LONG, "ckpt=auto")
    assert resumed == run.Outcome(folder, "done", 0)
    assert_equal_runs(resumed.run_dir, long_run.run_dir)
    assert not list((folder / "checkpoints").glob(".*")), "half-written files are left"
