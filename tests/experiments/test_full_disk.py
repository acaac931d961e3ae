"""A disk that is full at any moment: one line, nothing lost, and the same command goes on when there is room again.

The operating system itself refuses: the process may write no file longer than so many bytes.
"""

import json
import re
import resource
from collections.abc import Iterator

import pytest
import torch

from attelbo.cli import main
from attelbo.errors import UserError
from attelbo.experiments import report
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.sweeps.study import Study
from attelbo.training.checkpoint import AtomicCheckpointIO
from attelbo.training.loggers import CsvLogger

PLACES = {
    "the first checkpoint": (AtomicCheckpointIO, "save_checkpoint", 1),
    "a later checkpoint": (AtomicCheckpointIO, "save_checkpoint", 2),
    "metrics.csv": (CsvLogger, "log_metrics", 3),
    "status.json": (RunDirectory, "end", 1),
    "the report": (report, "write_report", 1),
}


@pytest.fixture
def full() -> Iterator[None]:
    """A disk that can be filled, and is emptied in the end."""
    yield
    make_room()


def fill() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def make_room() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture(scope="module")
def whole(shared_runs):
    """The metrics of the run that had room."""
    return RunDirectory(shared_runs.train("logger=csv").run_dir).read("result.json")["metrics"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("full")
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(runs, whole, monkeypatch, place) -> None:
    owner, name, call = PLACES[place]
    write, calls = getattr(owner, name), []

    def until_full(*arguments, **named):
        calls.append(name)
        if len(calls) == call:
            fill()
        return write(*arguments, **named)

    sweep = runs.folder / "sweep"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, until_full)
        with pytest.raises(UserError, match=r"cannot be written: File too large; what was written before is whole"):
            runs.train("logger=csv", sweep=sweep)
    make_room()
    (directory,) = (RunDirectory(path.parent) for path in sweep.glob("*/config.yaml"))
    assert not list(directory.path.rglob(".*.tmp"))
    for file in directory.path.rglob("*.json"):
        json.loads(file.read_text())
    for file in directory.path.rglob("*.ckpt"):
        assert torch.load(file, weights_only=True)["global_step"] > 0
    assert runs.train("logger=csv", sweep=sweep).state == "done"
    result = directory.read("result.json")
    assert result is not None
    assert result["metrics"] == whole


@pytest.mark.usefixtures("full")
def test_a_search_that_cannot_write_is_one_line(runs, monkeypatch, capsys) -> None:
    words = ["sweep.sampler=random", "sweep.n_trials=2", "optimizer.lr=interval(1e-3,1e-2)", "logger=csv"]
    catch_up = Study.catch_up

    def until_full(*arguments):
        fill()
        return catch_up(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "catch_up", until_full)
        assert main(["train", "-m", *runs.words(*words)]) == 2
    make_room()
    error = capsys.readouterr().err
    assert re.search(r"(search\.db cannot be used|cannot write .*sweep\.json): ", error)
    assert error.count("\n") == 1
    assert main(["train", "-m", *runs.words(*words)]) == 0
