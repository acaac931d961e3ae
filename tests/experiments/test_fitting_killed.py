"""``attelbo fit-prior``, killed anywhere and given again, ends as if it had not been killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from attelbo.cli import main
from attelbo.experiments.rundir import RunDirectory
from attelbo.models import FittedPrior
from attelbo.training import BlockStepper
from equal_runs import assert_equal_runs

# Either stage is three epochs of 3 blocks, with a checkpoint at the end of each.
PRIOR = (
    *("prior=autoregressive_transformer", "prior.dim=8", "prior.heads=2", "prior.layers=1"),
    *("epochs=3", "seed=3", "accelerator=cpu"),
)
FIRST = (
    *("experiment=digits/autoencoder_vq", "callbacks=checkpoint", "trainer.max_epochs=3", "trainer.threads=1"),
    *("data.train_size=100", "data.batch_size=20", "data.minibatches_per_block=2"),
    *("model.encoder.channels=[8,8]", "model.encoder.groups=2"),
    *("model.decoder.channels=[8,8]", "model.decoder.groups=2"),
    *("evaluation.n_images=3", "evaluation.n_samples=2"),
)

Stage = Literal["first", "second"]


def both_stages(folder: Path) -> list[str]:
    return ["fit-prior", *FIRST, *PRIOR, f"paths.output_dir={folder}"]


def run_of(folder: Path, stage: Stage) -> Path:
    name = "autoencoder_vq" if stage == "first" else "autoencoder_vq-autoregressive_transformer"
    (run,) = (folder / "digits" / name).iterdir()
    return run


def kill(words: list[str], stage: Stage, block: int) -> None:
    """Run a command in a process that dies at the end of a block, counted from 1 over the training of a stage."""
    step = BlockStepper.__call__

    def call(self: BlockStepper, rows: Any) -> None:
        step(self, rows)
        in_second = isinstance(self.model, FittedPrior)
        if in_second == (stage == "second") and self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == block:
            os.kill(os.getpid(), signal.SIGKILL)

    # A fork, since importing everything anew takes seconds.
    if (child := os.fork()) == 0:
        signal.alarm(120)
        BlockStepper.__call__ = call
        try:
            main(words)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(both_stages(folder)) == 0
    return folder


def attempts(run: Path) -> int:
    return RunDirectory(run).status()["attempts"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_both_stages_killed_again_and_again(uninterrupted, tmp_path, monkeypatch):
    words = both_stages(tmp_path)
    # Before the first checkpoint of a stage, and after it.
    kill(words, "first", 2)
    kill(words, "first", 5)
    kill(words, "second", 1)
    kill(words, "second", 8)
    blocks, step = [], BlockStepper.__call__
    monkeypatch.setattr(BlockStepper, "__call__", lambda self, rows: (step(self, rows), blocks.append(rows)))
    assert main(words) == 0
    assert len(blocks) == 3  # of 9: it has gone on, not begun anew
    assert (attempts(run_of(tmp_path, "first")), attempts(run_of(tmp_path, "second"))) == (3, 3)
    for stage in ("first", "second"):
        assert_equal_runs(run_of(tmp_path, stage), run_of(uninterrupted, stage))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_second_stage_of_a_finished_run_killed(uninterrupted, tmp_path):
    # A copy, so that the second stage of the original is not found done; what is written goes where that is.
    first = shutil.copytree(run_of(uninterrupted, "first"), tmp_path / "first")
    words = ["fit-prior", f"run={first}", *PRIOR]
    before = run_of(uninterrupted, "second")
    kill(words, "second", 2)
    kill(words, "second", 7)
    assert main(words) == 0
    (second,) = (run for run in before.parent.iterdir() if run != before)
    assert attempts(second) == 3
    assert_equal_runs(second, before)
    shutil.rmtree(second)


def test_the_same_command_again_finds_the_second_stage(uninterrupted, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    # Of a folder the newest run is meant, and that is the second stage itself.
    for run in (run_of(uninterrupted, "first"), uninterrupted):
        assert main(["fit-prior", f"run={run}", *PRIOR]) == 0
    assert capsys.readouterr().out.count(f"{run_of(uninterrupted, 'second')} is done already") == 2
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


@pytest.mark.slow
def test_processes_killed_at_any_moment(uninterrupted, tmp_path):
    def written() -> set[tuple[Path, int]]:
        return {(path, path.stat().st_mtime_ns) for path in tmp_path.glob("digits/*/*/checkpoints/last.ckpt")}

    command = [sys.executable, "-m", "attelbo", *both_stages(tmp_path)]
    for _ in range(5):
        before = written()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and written() == before:
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0, 0.3))
        process.kill()
        process.wait()
    assert main(both_stages(tmp_path)) == 0
    assert attempts(run_of(tmp_path, "first")) + attempts(run_of(tmp_path, "second")) > 3
    for stage in ("first", "second"):
        assert_equal_runs(run_of(tmp_path, stage), run_of(uninterrupted, stage))
