"""Whole runs on a GPU: the ordinary command, what it writes, and how it goes on."""

import json
import signal

import pytest
import torch

from attelbo.cli import main
from attelbo.training import BlockStepper
from attelbo.training.graphs import GraphEngine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WORDS = ("trainer.accelerator=gpu", "scheduler=cosine", "optimizer.lr=0.003", "trainer.max_epochs=3")


@pytest.fixture(scope="module")
def on_gpu(shared_runs):
    return shared_runs.train(*WORDS, "evaluation.n_samples=500", "evaluation.n_images=100")


def read(path):
    return json.loads(path.read_text())["metrics"]


def test_an_ordinary_run_replays_its_steps(runs, monkeypatch):
    replayed = []
    replay = GraphEngine._replay
    monkeypatch.setattr(
        GraphEngine, "_replay", lambda self, step, *rest: replayed.append(step) or replay(self, step, *rest)
    )
    assert runs.train(*WORDS).state == "done"
    assert replayed == list(range(3, 30))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stopped_and_resumed_is_the_same_bit_for_bit(runs, monkeypatch, precision):
    words = (*WORDS, f"trainer.precision={precision}", "ckpt=auto")
    expected = runs.train(*words, "name=whole")
    step = BlockStepper.__call__

    def stop(self, block):
        step(self, block)
        if self.step == 14:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", stop)
        assert runs.train(*words).state == "interrupted"
    resumed = runs.train(*words)
    own, theirs = (runs.checkpoint(outcome)["state_dict"] for outcome in (resumed, expected))
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    assert read(resumed.run_dir / "result.json") == read(expected.run_dir / "result.json")


@pytest.mark.parametrize("there", ["gpu", "cpu"])
def test_weights_of_one_device_are_measured_on_the_other(runs, on_gpu, there):
    trained = on_gpu if there == "gpu" else runs.train("evaluation.n_samples=500", "evaluation.n_images=100")
    other = "cpu" if there == "gpu" else "gpu"
    words = ["n_samples=500", "n_images=100", f"accelerator={other}"]
    assert main(["evaluate", f"run={trained.run_dir}", *words]) == 0
    own, measured = read(trained.run_dir / "result.json"), read(trained.run_dir / "evaluation-test.json")
    assert measured["test/elbo"] == pytest.approx(own["test/elbo"], abs=0.2)  # another noise
    assert measured["test/nll"] == pytest.approx(own["test/nll"], abs=0.1)


def test_samples(on_gpu):
    assert main(["sample", f"run={on_gpu.run_dir}", "n=4", "accelerator=gpu"]) == 0
    assert (on_gpu.run_dir / "media" / "samples-n4-seed0.png").is_file()


@pytest.mark.parametrize("model", ["vae", "text_vae"])
def test_gaps_of_the_bound(runs, model):
    words = (f"model={model}", "trainer.accelerator=gpu", "evaluation.gaps=true", "evaluation.n_samples=500")
    done = runs.train(*words)
    assert main(["evaluate", f"run={done.run_dir}", "gaps=true", "n_samples=500", "n_images=5", "accelerator=cpu"]) == 0
    own, there = read(done.run_dir / "result.json"), read(done.run_dir / "evaluation-test.json")
    for name in ("annealed_nll", "approximation_gap", "amortization_gap"):
        assert there[f"test/{name}"] == pytest.approx(own[f"test/{name}"], abs=0.3)  # another noise


@pytest.mark.parametrize("stack", ["true", "false"])
def test_replicas_are_the_runs_by_themselves(runs, stack):
    words = runs.words(*WORDS, "trainer.replicas=3", f"trainer.stack={stack}")
    assert main(["train", *words]) == 0
    found = sorted(read(path)["test/elbo"] for path in runs.folder.rglob("result.json"))
    alone = [runs.train(*WORDS, f"seed={seed}", "name=alone").run_dir for seed in range(3)]
    assert found == pytest.approx(sorted(read(path / "result.json")["test/elbo"] for path in alone), rel=1e-3)


def test_bf16_and_its_own_evaluation(runs):
    half, full = (runs.train(*WORDS, f"trainer.precision={precision}") for precision in ("bf16-mixed", "32-true"))
    own, expected = (read(outcome.run_dir / "result.json")["test/elbo"] for outcome in (half, full))
    assert own == pytest.approx(expected, rel=0.02)
    assert own != expected
