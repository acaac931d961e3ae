"""Checkpoint files: plain content, whole or absent, and a clear word when they are damaged."""

import errno
import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from attelbo.errors import ConfigError, UserError
from attelbo.experiments import run
from attelbo.files import link_or_copy
from attelbo.models import LanguageModel, Model, VariationalAutoencoder, load_run, load_weights
from attelbo.models.schedulers import StepDecay
from attelbo.training.checkpoint import AtomicCheckpointIO, save_weights

PLAIN = (dict, list, tuple, str, int, float, bool, torch.Tensor, type(None))


@pytest.fixture(scope="module")
def done(shared_runs) -> run.Outcome:
    return shared_runs.train("callbacks=default", "scheduler=cosine")


def assert_plain(content: Any, where: str = "") -> None:
    assert isinstance(content, PLAIN), f"{where}: {type(content)}"
    if isinstance(content, dict):
        for key, value in content.items():
            assert isinstance(key, str | int), f"{where}: {key!r}"
            assert_plain(value, f"{where}.{key}")
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            assert_plain(value, f"{where}[{i}]")


def test_a_checkpoint_holds_tensors_and_plain_containers(runs, done):
    for name in ("last", "best"):
        checkpoint = runs.checkpoint(done, name)  # with weights_only=True
        assert_plain(checkpoint)
        assert str(done.run_dir) not in repr(checkpoint)  # the run directory may be moved
    assert {file.name for file in (done.run_dir / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


# -- in the background ------------------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch):
    """Nothing is written until the event is set."""
    go, save = threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: (go.wait(10), save(content, file)))
    yield go
    go.set()


def test_what_is_written_in_the_background_is_what_was_there(tmp_path, held):
    files, weight = AtomicCheckpointIO(), torch.zeros(3)
    with files.in_background():
        files.save_checkpoint({"weight": weight}, tmp_path / "best.ckpt")
        files.link(tmp_path / "best.ckpt", tmp_path / "last.ckpt")
    weight += 1
    assert not list(tmp_path.glob("*.ckpt"))
    held.set()
    for name in ("last", "best"):
        assert torch.equal(files.load_checkpoint(tmp_path / f"{name}.ckpt")["weight"], torch.zeros(3))


def test_only_what_is_written_in_the_background_is_copied(tmp_path, monkeypatch):
    kept, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: (kept.append(content), save(content, file)))
    weights, whole = torch.arange(6.0).view(2, 3).t(), torch.arange(8.0)
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weights": weights, "part": whole[2:4]}, tmp_path / "last.ckpt")
    save_weights(tmp_path / "epoch1.ckpt", {"weights": weights})
    with io.in_background():
        io.save_checkpoint({"weights": weights}, tmp_path / "best.ckpt")
    io.teardown()
    at_once, of_epoch, in_background = kept
    assert at_once["weights"].data_ptr() == of_epoch["state_dict"]["weights"].data_ptr() == weights.data_ptr()
    assert in_background["weights"].data_ptr() != weights.data_ptr()
    read = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(read["weights"], weights)
    assert read["part"].untyped_storage().nbytes() == 8  # not all that it is a part of


def test_a_file_that_could_not_be_written_is_told_and_nothing_follows(tmp_path, monkeypatch):
    (tmp_path / "best.ckpt").write_bytes(b"old")
    (tmp_path / "last.ckpt").write_bytes(b"newer")
    monkeypatch.setattr(torch, "save", lambda *args: raise_(OSError(errno.ENOSPC, "No space left on device")))
    files = AtomicCheckpointIO()
    with files.in_background():
        files.save_checkpoint({}, tmp_path / "best.ckpt")
        files.link(tmp_path / "best.ckpt", tmp_path / "last.ckpt")
    with pytest.raises(OSError, match="No space left"):
        files.teardown()
    files.teardown()  # as Lightning does after an error
    assert (tmp_path / "last.ckpt").read_bytes() == b"newer"


def test_a_full_disk_ends_a_run_in_one_line(runs, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *args: raise_(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; .*give the same command again"):
        runs.train("callbacks=default", "trainer.max_epochs=1")


def test_tied_weights_are_written_once(tmp_path):
    weight = torch.randn(100, 100)
    content = {"embedding": weight.detach(), "head": weight.detach(), "slice": weight[:1]}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    read = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert read["embedding"].data_ptr() == read["head"].data_ptr()
    assert torch.equal(read["slice"], weight[:1])
    assert (tmp_path / "a.ckpt").stat().st_size < 1.2 * 40_000


def raise_(error):
    raise error


# -- whole or absent -----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    return path


class CrashError(Exception):
    """The process ends here."""


def test_a_crash_while_writing_leaves_the_old_file(saved, monkeypatch):
    def half(content, file):
        file.write(b"half of it")
        raise CrashError

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CrashError):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, saved)
    assert AtomicCheckpointIO().load_checkpoint(saved) == {"step": 1}
    assert list(saved.parent.iterdir()) == [saved]


def test_a_crash_before_the_file_is_renamed_leaves_the_old_file(saved, monkeypatch):
    def crash(self, target):
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        patch.setattr(Path, "unlink", lambda self, missing_ok: None)  # a killed process tidies nothing up
        with pytest.raises(CrashError):
            AtomicCheckpointIO().save_checkpoint({"step": 2}, saved)
    assert len(list(saved.parent.iterdir())) == 2
    assert AtomicCheckpointIO().load_checkpoint(saved) == {"step": 1}
    AtomicCheckpointIO().save_checkpoint({"step": 3}, saved)
    assert AtomicCheckpointIO().load_checkpoint(saved) == {"step": 3}


def test_what_was_read_is_handed_over_once_and_only_for_its_file(saved, tmp_path):
    reader, content = AtomicCheckpointIO(), {"step": 9}
    reader.hand_over(saved, content)
    assert reader.load_checkpoint(str(saved)) is content
    assert reader.load_checkpoint(saved) == {"step": 1}
    reader.hand_over(tmp_path / "other.ckpt", content)
    assert reader.load_checkpoint(saved) == {"step": 1}


def test_nothing_but_plain_content_is_loaded(saved):
    torch.save({"path": saved}, saved)
    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().load_checkpoint(saved)


# -- damaged -------------------------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def text(content: bytes) -> bytes:
    return b"not a checkpoint at all"


def other_object(content: bytes) -> bytes:
    return pickle.dumps(CrashError())


@pytest.mark.parametrize("damage", [truncated, empty, text, other_object])
def test_a_damaged_checkpoint_is_named_in_one_line(runs, done, tmp_path, damage):
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(damage((done.run_dir / "checkpoints" / "last.ckpt").read_bytes()))
    model, _ = load_run(done.run_dir)
    with pytest.raises(UserError, match=r"damaged\.ckpt is not a checkpoint of this model, or damaged: .+") as caught:
        load_weights(model, damaged)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"damaged\.ckpt") as caught:
        runs.train(f"ckpt={damaged}")
    assert "\n" not in str(caught.value)
    assert not runs.folder.exists(), "a run directory was made for nothing"


def test_a_damaged_checkpoint_stops_ckpt_auto(runs, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", fail)
        with pytest.raises(ZeroDivisionError):
            runs.train()
    (checkpoint,) = runs.folder.glob("*/*/checkpoints/last.ckpt")
    checkpoint.write_bytes(truncated(checkpoint.read_bytes()))
    before = checkpoint.read_bytes()
    with pytest.raises(UserError, match=r"last\.ckpt"):
        runs.train("ckpt=auto")
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_that_is_not_there(runs):
    with pytest.raises(ConfigError, match=r"ckpt: no such file: nowhere\.ckpt"):
        runs.train("ckpt=nowhere.ckpt")
    assert not runs.folder.exists()


def test_a_checkpoint_of_another_model(runs, done):
    checkpoint = done.run_dir / "checkpoints" / "last.ckpt"
    other, _ = run.assemble(runs.configure("model.latent_dim=3"))
    with pytest.raises(
        UserError, match=r"last\.ckpt is not a checkpoint .*, or damaged: size mismatch for posterior\.head"
    ):
        load_weights(other, checkpoint)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        runs.train("model.latent_dim=3", f"ckpt={checkpoint}")


# -- back from the run directory -----------------------------------------------------------------------


@pytest.mark.parametrize("which", ["best", "last"])
def test_from_run(runs, done, which):
    model = VariationalAutoencoder.from_run(done.run_dir, which)
    assert not model.training
    saved = runs.checkpoint(done, which)["state_dict"]
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert model.sample(3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("which", ["best", "last"])
def test_lightnings_name_for_it(done, tmp_path, which):
    path = done.run_dir / "checkpoints" / f"{which}.ckpt"
    model = VariationalAutoencoder.load_from_checkpoint(str(path))
    expected = VariationalAutoencoder.from_run(done.run_dir, which).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    shutil.copytree(done.run_dir, tmp_path / "run")
    elsewhere = tmp_path / "run" / "copy.ckpt"
    shutil.copy(path, elsewhere)
    with pytest.raises(UserError, match=r"copy\.ckpt is no checkpoint in a run directory, .*load_state_dict"):
        VariationalAutoencoder.load_from_checkpoint(elsewhere)
    with pytest.raises(UserError, match=r"epoch7\.ckpt: no such file"):
        VariationalAutoencoder.load_from_checkpoint(path.with_name("epoch7.ckpt"))
    with pytest.raises(TypeError, match="missing"):
        VariationalAutoencoder.load_from_checkpoint(path, latent_dim=3)


def test_from_run_of_a_folder_takes_the_newest_run_that_is_done(tmp_path, done):
    for name, state, started in (("old", "done", "2020"), ("new", "done", "2021"), ("cut", "interrupted", "2022")):
        shutil.copytree(done.run_dir, tmp_path / "runs" / name)
        status = {"state": state, "started": f"{started}-01-01T00:00:00"}
        (tmp_path / "runs" / name / "status.json").write_text(json.dumps(status))
        weights = torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt")
        next(iter(weights["state_dict"].values())).fill_(int(started))
        torch.save(weights, tmp_path / "runs" / name / "checkpoints" / "best.ckpt")
    model = VariationalAutoencoder.from_run(tmp_path)
    assert set(next(iter(model.state_dict().values())).flatten().tolist()) == {2021}


def test_from_run_of_another_kind_of_model(done):
    assert type(Model.from_run(done.run_dir)) is VariationalAutoencoder
    with pytest.raises(UserError, match="is the run of a VariationalAutoencoder, not of a LanguageModel"):
        LanguageModel.from_run(done.run_dir)


def test_from_run_of_no_run(tmp_path, done):
    with pytest.raises(UserError, match="is no run directory, and there is none with a checkpoint below it"):
        VariationalAutoencoder.from_run(tmp_path)
    with pytest.raises(UserError, match=r"nowhere: no such folder; runs are in outputs/<name>/<run id>$"):
        VariationalAutoencoder.from_run(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_bytes((done.run_dir / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="has no checkpoint in checkpoints/"):
        VariationalAutoencoder.from_run(tmp_path)


def test_the_best_checkpoint_may_be_missing(tmp_path, done):
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml", "checkpoints/last.ckpt"):
        (tmp_path / name).write_bytes((done.run_dir / name).read_bytes())
    ours = VariationalAutoencoder.from_run(tmp_path, "best").state_dict()
    last = VariationalAutoencoder.from_run(done.run_dir, "last").state_dict()
    assert all(torch.equal(ours[name], last[name]) for name in last)


def test_the_data_may_have_moved(done, tmp_path):
    _, data = load_run(done.run_dir, data_dir=str(tmp_path))
    assert data.root == tmp_path
    assert load_run(done.run_dir)[1].root != tmp_path


def test_an_epoch_that_is_the_best_is_written_once(runs, monkeypatch):
    written = []
    save = AtomicCheckpointIO.save_checkpoint

    def note(self, checkpoint, path, storage_options=None):
        written.append(Path(path).name)
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", note)
    improving = runs.train("trainer.max_epochs=2", "optimizer.lr=0.003")
    assert written == ["best.ckpt", "best.ckpt"]
    best, last = (improving.run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert best.read_bytes() == last.read_bytes()
    assert runs.checkpoint(improving)["epoch"] == 1

    written.clear()
    # The rate of the second epoch breaks what the first has learned.
    schedule = ("scheduler=step_decay", "scheduler.milestones=[0.5]", "scheduler.factor=1.0")
    monkeypatch.setattr(StepDecay, "__call__", lambda self, step, total: 1.0 if step < total / 2 else 1000.0)
    worse = runs.train("trainer.max_epochs=2", "optimizer.lr=0.003", *schedule)
    assert written == ["best.ckpt", "last.ckpt"]
    assert (runs.checkpoint(worse, "best")["epoch"], runs.checkpoint(worse)["epoch"]) == (0, 1)


def test_a_second_name_where_there_are_none(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("this file system knows one name for a file")

    (tmp_path / "a").write_text("one")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
