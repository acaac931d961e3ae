"""The weights of every n-th epoch: those that the model had then, and what takes them."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from attelbo.cli import main
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.assembly import assemble
from attelbo.models import VariationalAutoencoder, load_run
from attelbo.training import BlockStepper
from attelbo.training.callbacks import EpochWeights

WORDS = ("callbacks=epochs", "callbacks.epochs.every_n_epochs=2", "callbacks.progress=null", "callbacks.pictures=null")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def done(shared_runs):
    return shared_runs.train(*WORDS, "trainer.max_epochs=5", "evaluation.checkpoint=epoch2")


def test_they_are_those_of_a_shorter_training(done, runs):
    folder = done.run_dir / "checkpoints"
    assert {file.name for file in folder.iterdir()} == {"best.ckpt", "last.ckpt", "epoch2.ckpt", "epoch4.ckpt"}
    shorter = runs.train("trainer.max_epochs=2")
    assert equal(weights(folder / "epoch2.ckpt"), weights(shorter.run_dir / "checkpoints" / "last.ckpt"))
    assert not equal(weights(folder / "epoch2.ckpt"), weights(folder / "epoch4.ckpt"))
    assert list(torch.load(folder / "epoch4.ckpt", weights_only=True)) == ["state_dict"]


def test_they_are_measured_and_drawn_from(done, capsys):
    result = json.loads((done.run_dir / "result.json").read_text())
    assert result["checkpoint"] == "epoch2"
    words = ["n_samples=2", "n_images=5", "accelerator=cpu"]
    capsys.readouterr()
    assert main(["evaluate", str(done.run_dir), "checkpoint=epoch2", *words]) == 0
    assert "report.html" in capsys.readouterr().out
    again = json.loads((done.run_dir / "evaluation-test.json").read_text())
    assert (again["checkpoint"], again["metrics"]["test/elbo"]) == ("epoch2", result["metrics"]["test/elbo"])
    assert main(["evaluate", str(done.run_dir), "checkpoint=epoch4", *words]) == 0
    assert str(done.run_dir / "media") not in (out := capsys.readouterr().out)  # these show epoch 2
    assert "report.html" not in out
    later = json.loads((done.run_dir / "evaluation-test.json").read_text())
    assert later["metrics"]["test/elbo"] > again["metrics"]["test/elbo"]
    assert main(["sample", str(done.run_dir), "checkpoint=epoch4", "n=4", "accelerator=cpu"]) == 0
    assert (done.run_dir / "media" / "samples-n4-seed0-epoch4.png").is_file()
    model = VariationalAutoencoder.from_run(done.run_dir, "epoch4")
    assert equal(model.state_dict(), weights(done.run_dir / "checkpoints" / "epoch4.ckpt"))


def test_an_interruption_changes_nothing(runs, done, monkeypatch):
    step = BlockStepper.__call__

    def call(self, rows):
        step(self, rows)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == 8:  # in the third epoch
            os.kill(os.getpid(), signal.SIGTERM)

    words = (*WORDS, "trainer.max_epochs=5", "evaluation.checkpoint=epoch2")
    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", call)
        assert runs.train(*words).state == "interrupted"
    resumed = runs.train(*words, "ckpt=auto")
    assert resumed.state == "done"
    for name in ("epoch2", "epoch4", "last"):
        ours, theirs = (weights(o.run_dir / "checkpoints" / f"{name}.ckpt") for o in (resumed, done))
        assert equal(ours, theirs)


def test_what_is_not_kept_is_told(done, runs, capsys):
    with pytest.raises(UserError, match=r"\(epoch3\).*; there are best, last, epoch2, epoch4"):
        load_run(done.run_dir, checkpoint="epoch3")
    for words in (("evaluation.checkpoint=epoch2",), (*WORDS, "evaluation.checkpoint=epoch3")):
        with pytest.raises(
            ConfigError, match=r"evaluation\.checkpoint=epoch\d: the weights of that epoch are not kept"
        ):
            assemble(runs.configure(*words))
    with pytest.raises(ConfigError, match=r"epoch4\.ckpt holds weights alone"):
        runs.train(*WORDS, f"ckpt={done.run_dir / 'checkpoints' / 'epoch4.ckpt'}")
    assert main(["sample", str(done.run_dir), "checkpoint=epoch0"]) == 2
    message = "expected 'best' or 'last' or 'average' or epoch<n>, got 'epoch0'"
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1, got 0"):
        EpochWeights(every_n_epochs=0)
