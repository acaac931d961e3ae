"""Runs in which several players train in turns, each with its own optimizer, resumed bit for bit."""

import signal

import pytest
import torch
from test_resume import signal_at

from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble
from attelbo.files import read_metrics
from attelbo.models.schedulers import Cosine
from equal_runs import assert_equal_runs

WORDS = ("model=vae_gan", "model.objective.channels=[4,8]", "scheduler=cosine", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def uninterrupted(shared_runs):
    return shared_runs.train(*WORDS)


@pytest.mark.parametrize("block", [2, 4])
def test_stopped_and_resumed(runs, uninterrupted, monkeypatch, block):
    with monkeypatch.context() as patch:
        signal_at(patch, block, signal.SIGTERM)
        assert runs.train(*WORDS).state == "interrupted"
    resumed = runs.train(*WORDS, "ckpt=auto")
    assert len(runs.checkpoint(resumed)["optimizer_states"]) == 3
    assert_equal_runs(resumed.run_dir, uninterrupted.run_dir)


# -- a discriminator's own learning rate ---------------------------------------------------------------

RATE = 0.25
RATED = (*WORDS, f"model.objective.discriminator_rate={RATE}", "optimizer.lr=0.002", "callbacks=default")
RATED = (*RATED, "callbacks.progress=null", "callbacks.pictures=null", "trainer.log_every_n_steps=1")


def test_a_discriminator_has_the_rate_that_was_asked_for_resumed_too(runs, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        assert runs.train(*RATED).state == "interrupted"
    resumed = runs.train(*RATED, "ckpt=auto")
    curves, schedule = read_metrics(resumed.run_dir / "metrics.csv"), Cosine(warmup=0.05)
    for place, rate in enumerate((1.0, 1.0, RATE)):
        for step, value in curves[f"lr/{place}"][1:]:  # after those steps; the first line is from before
            assert value == pytest.approx(0.002 * rate * schedule(step - 1, 20), rel=1e-6)
    assert len({value for _, value in curves["lr/2"]}) > 2
    states = runs.checkpoint(resumed)["optimizer_states"]
    assert [state["param_groups"][0]["initial_lr"] for state in states] == [0.002, 0.002, 0.002 * RATE]


@pytest.mark.parametrize("model", ["factor_vae", "aae", "vae_gan"])
def test_the_first_step_of_adam_is_as_long_as_the_rate(runs, model):
    """It is lr * g / (|g| + eps), whatever the gradient."""
    words = (f"model={model}", "model.objective.discriminator_rate=0.125", "optimizer.lr=0.002", "optimizer.eps=1e-20")
    before, _ = assemble(runs.configure("callbacks=none", *words))
    after = runs.fit(*words, "trainer.max_steps=1", "data.minibatches_per_block=1").lightning_module
    assert after is not None
    for part, rate in (("objective.critic", 0.002 * 0.125), ("decoder", 0.002)):
        start, end = before.get_submodule(part), after.get_submodule(part)
        moved = [(b - a).abs().max() for a, b in zip(start.parameters(), end.parameters(), strict=True)]
        assert float(torch.stack(moved).max().detach()) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("model", ["aae", "factor_vae", "vae_gan"])
def test_a_discriminator_that_learns_nothing_is_refused(runs, model):
    with pytest.raises(ConfigError, match="discriminator_rate must be positive and finite, got 0"):
        assemble(runs.configure(f"model={model}", "model.objective.discriminator_rate=0.0"))
