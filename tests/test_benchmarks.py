"""The benchmark compares like with like, and its arithmetic and its turns are right."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import report, training
from benchmarks.contestants.bare_loop import BareVAE
from benchmarks.contestants.command import words
from benchmarks.data import has_mnist, write_random_mnist
from benchmarks.task import Task
from benchmarks.turns import Lap, Span, plain, take_turns

from attelbo.data.sources import MNIST
from attelbo.experiments.configuration import check, compose
from attelbo.models import build_data, build_model, count_parameters

TASK = Task("tiny", (8, 8), 3, "tanh", threads=1, laps=3, train_size=500, validation_size=100, data_dir="data")


def lap(rows: int, train: float, whole: float) -> Lap:
    return Lap(rows, Span(train, train / 2), Span(whole, whole / 4), val_elbo=-100.0)


@pytest.mark.parametrize("task", [TASK, replace(TASK, hidden=(16,), latent_dim=2, activation="relu")])
def test_both_train_the_same_model(task, tmp_path):
    composition = compose("train", words(task, tmp_path)[1:])
    check(composition)
    config = composition.config
    assert config["trainer"]["max_epochs"] == task.laps
    assert config["trainer"]["threads"] == task.threads
    assert {"progress", "best_checkpoint", "last_checkpoint", "nan_guard"} <= config["callbacks"].keys()
    assert config["optimizer"]["fused"] is True
    assert config["optimizer"]["lr"] == task.lr
    ours, bare = build_model(config, build_data(config)), BareVAE(task)
    assert count_parameters(ours) == count_parameters(bare)
    theirs = dict(zip(bare.parameters(), _in_their_order(ours), strict=True))
    with torch.no_grad():
        for own, other in theirs.items():
            own.copy_(other)
    x = torch.bernoulli(torch.rand(20, 1, 28, 28))
    torch.manual_seed(1)
    loss = ours.objective(ours.evidence(x))
    loss.backward()
    torch.manual_seed(1)
    bare_loss = bare(x.flatten(1))
    bare_loss.backward()
    torch.testing.assert_close(bare_loss, loss)
    for own, other in theirs.items():
        torch.testing.assert_close(own.grad, other.grad)


def _in_their_order(model):
    return [p for part in (model.encoder, model.posterior, model.decoder) for p in part.parameters()]


def test_initial_weights_have_our_spread():
    for activation in ("tanh", "relu"):
        task = replace(TASK, hidden=(300, 300), activation=activation)
        config = compose("train", words(task, Path("out"))[1:]).config
        ours = _in_their_order(build_model(config, build_data(config)))
        for own, other in zip(BareVAE(task).parameters(), ours, strict=True):
            if own.numel() > 10_000:  # the posterior's head apart, whose weights are torch's default in attelbo
                assert own.std().item() == pytest.approx(other.std().item(), rel=0.05)


def test_ratios_are_made_within_a_round():
    ours = [lap(100, 1.0, 2.0), lap(100, 10.0, 20.0), lap(100, 2.0, 2.0)]
    bare = [lap(100, 0.5, 1.0), lap(100, 10.0, 10.0), lap(100, 3.0, 1.0)]
    result = report.compare(ours, bare)
    assert result["train"]["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}
    assert result["whole"]["ratio"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert result["train"]["cpu_ratio"] == result["train"]["ratio"]
    assert result["train"]["rows_per_second"]["ours"] == {"median": 50.0, "min": 10.0, "max": 100.0}


def test_tasks():
    full, quick = training.tasks(False, 6, Path()), training.tasks(True, 3, Path())
    assert [(task.hidden, task.threads) for task in full] == [
        ((200, 200), 1),
        ((200, 200), None),
        ((512, 512), 1),
        ((512, 512), None),
    ]
    assert all(task.train_size + task.validation_size == 60_000 for task in full)
    assert [task.threads for task in quick] == [1, 1]
    assert all(Task.from_json(task.to_json()) == task for task in full)


def test_random_files_are_read_as_mnist(tmp_path):
    assert not has_mnist(tmp_path)
    write_random_mnist(tmp_path, 30, 20)
    assert has_mnist(tmp_path)
    splits = MNIST().load(tmp_path)
    assert (len(splits.train.x), len(splits.test.x)) == (30, 20)
    assert 100 < splits.train.x.float().mean() < 155


def test_plain_output():
    assert plain(b"\x1b[2Kstep 1\r\x1b[36mstep 2\x1b[0m\r\nerror\r\n") == "step 2\nerror"


def test_a_failing_contestant_is_quoted(tmp_path):
    with pytest.raises(RuntimeError, match=r"contestants\.bare_loop ended with 1:(.|\n)*missing in"):
        take_turns({"bare": training.CONTESTANTS["bare"]}, replace(TASK, data_dir=str(tmp_path)).to_json(), laps=1)


def test_patience_ends_after_the_second_lap_and_leaves_nothing(tmp_path, monkeypatch):
    write_random_mnist(tmp_path / "data", 700, 120)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    task = replace(TASK, data_dir=str(tmp_path / "data"), laps=50)
    laps, about = take_turns(training.CONTESTANTS, task.to_json(), task.laps, patience=0)
    assert [len(own) for own in laps.values()] == [2, 2]
    assert about["attelbo"]["threads"] == about["bare"]["threads"] == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_a_tiny_run_from_processes_to_table(tmp_path, monkeypatch):
    write_random_mnist(tmp_path, 700, 120)
    monkeypatch.setattr(training, "tasks", lambda quick, rounds, data_dir: [replace(TASK, data_dir=str(data_dir))])
    lines = []
    result = training.run(tmp_path, quick=True, rounds=2, tell=lines.append)
    (row,) = result["results"]
    assert row["threads"] == 1
    for laps in row["laps"].values():
        assert [own["rows"] for own in laps] == [500, 500, 500]
        assert all(0 < own["train"]["wall"] < own["whole"]["wall"] for own in laps)
        assert all(0 < own["train"]["cpu"] < own["whole"]["cpu"] for own in laps)
        assert all(-700 < own["val_elbo"] < -300 for own in laps)
    assert lines == [f"tiny, threads 1: {row['train']['ratio']['median']:.3f} of the bare loop"]
    table = report.markdown(result)
    assert "| tiny | 1 | 2 |" in table
    saved = report.save(result, tmp_path / "results")
    assert json.loads(saved.read_text(encoding="utf-8"))["results"][0]["laps"] == row["laps"]
    assert str(tmp_path) not in saved.read_text(encoding="utf-8")
