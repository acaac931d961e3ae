"""Runs in which several players train in turns, each with its own optimizer, resumed bit for bit."""

import signal

import pytest
from test_resume import signal_at

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
