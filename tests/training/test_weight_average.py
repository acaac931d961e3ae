"""The mean of the last epochs' weights: what it is made of, after an interruption too, and what measures it."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble
from attelbo.experiments.tables import print_result
from attelbo.models import load_run
from attelbo.training import BlockStepper
from attelbo.training.callbacks import WeightAverage, weight_average

WORDS = (
    *("callbacks=average", "callbacks.average.epochs=2", "trainer.max_epochs=4", "evaluation.checkpoint=average"),
    *("model.encoder.batch_norm=true", "callbacks.progress=null", "callbacks.pictures=null"),
)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def done(shared_runs):
    """A run, and its weights after each epoch."""
    seen, take = [], WeightAverage.on_train_epoch_end

    def watched(self, trainer, module):
        take(self, trainer, module)
        seen.append({name: value.detach().clone() for name, value in module.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightAverage, "on_train_epoch_end", watched)
        return shared_runs.train(*WORDS), seen


def test_it_is_the_mean_of_the_last_epochs(done):
    outcome, seen = done
    assert len(seen) == 4
    average = weights(outcome.run_dir / "checkpoints" / "average.ckpt")
    assert average.keys() == seen[-1].keys()
    for name, value in average.items():
        expected = (seen[2][name] + seen[3][name]) / 2 if value.is_floating_point() else seen[3][name]
        torch.testing.assert_close(value, expected, msg=name)
    assert not torch.equal(average["decoder.output.weight"], seen[3]["decoder.output.weight"])
    kept = sorted(path.name for path in (outcome.run_dir / "checkpoints" / "epochs").iterdir())
    assert kept == ["000002.ckpt", "000003.ckpt"]


def test_it_is_what_is_measured(done, capsys):
    run = done[0].run_dir
    result = json.loads((run / "result.json").read_text())
    assert result["checkpoint"] == "average"
    model, _ = load_run(run, checkpoint="average")
    assert torch.equal(
        model.state_dict()["decoder.output.weight"],
        weights(run / "checkpoints" / "average.ckpt")["decoder.output.weight"],
    )
    print_result(result, run)
    assert main(["evaluate", str(run), "checkpoint=average", "n_samples=2", "n_images=5", "accelerator=cpu"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" weights")]
    assert told == [["weights", "average", "checkpoint"]] * 2
    again = json.loads((run / "evaluation-test.json").read_text())["metrics"]
    assert again["test/elbo"] == result["metrics"]["test/elbo"]


@pytest.mark.parametrize("block", [5, 9, 10])
def test_an_interruption_changes_nothing(runs, done, monkeypatch, block):
    step = BlockStepper.__call__

    def call(self, rows):
        step(self, rows)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == block:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", call)
        assert runs.train(*WORDS).state == "interrupted"
    resumed = runs.train(*WORDS, "ckpt=auto")
    assert resumed.state == "done"
    ours, theirs = (weights(o.run_dir / "checkpoints" / "average.ckpt") for o in (resumed, done[0]))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_killed_before_the_mean_is_written_is_finished_by_the_next(runs, done, monkeypatch):
    write = weight_average.save_weights

    def killed(path, weights):
        if path.name == "average.ckpt":
            raise SystemExit
        write(path, weights)

    with monkeypatch.context() as patch:
        patch.setattr(weight_average, "save_weights", killed)
        with pytest.raises(SystemExit):
            runs.train(*WORDS)
    resumed = runs.train(*WORDS, "ckpt=auto")
    assert resumed.state == "done"
    ours, theirs = (weights(o.run_dir / "checkpoints" / "average.ckpt") for o in (resumed, done[0]))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_it_is_measured_where_no_epoch_leaves_a_checkpoint(done, runs):
    without = runs.train(*WORDS, "callbacks.best_checkpoint=null", "callbacks.last_checkpoint=null")
    ours, theirs = (json.loads((o.run_dir / "result.json").read_text()) for o in (without, done[0]))
    assert ours["checkpoint"] == "average"
    assert ours["metrics"] == theirs["metrics"]


def test_without_it_there_is_no_average(runs):
    with pytest.raises(ConfigError, match=r"evaluation\.checkpoint=average: nothing averages the weights"):
        assemble(runs.configure("evaluation.checkpoint=average"))
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        WeightAverage(epochs=0)
