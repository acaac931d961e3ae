"""Means that arrive late, as from a GPU, are logged like those that are there at once."""

import signal

import pytest

from attelbo.files import read_rows
from attelbo.training import BlockStepper, term_means
from attelbo.training.arriving import Arriving

WORDS = ("trainer.max_epochs=2", "trainer.log_every_n_steps=3", "callbacks=default")


class Late(Arriving):
    """Has not arrived before it is read."""

    @property
    def is_under_way(self):
        return True


def lines(run_dir):
    """What was logged, in the order of steps: a line may come after those of callbacks at the same step."""
    rows = read_rows(run_dir / "metrics.csv")
    steps = [row.step for row in rows if row.step is not None]
    assert steps == sorted(steps)
    return sorted(zip(steps, (row.metric for row in rows), (row.value for row in rows), strict=True))


@pytest.fixture(scope="module")
def expected(shared_runs):
    return lines(shared_runs.train(*WORDS, "name=expected").run_dir)


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr(term_means, "Arriving", Late)


def test_late_lines_are_all_there(runs, late, expected):
    assert any(metric == "train/loss" for _, metric, _ in expected)
    assert lines(runs.train(*WORDS).run_dir) == expected


def test_an_interrupted_run_has_logged_what_was_under_way(runs, late, expected, monkeypatch):
    step = BlockStepper.__call__

    def stop(self, block):
        step(self, block)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", stop)
        stopped = runs.train(*WORDS, "ckpt=auto", "data.minibatches_per_block=4")
    assert stopped.state == "interrupted"
    assert [metric for step, metric, _ in lines(stopped.run_dir) if step == 4 and metric == "train/loss"]
    resumed = runs.train(*WORDS, "ckpt=auto", "data.minibatches_per_block=4")
    whole = runs.train(*WORDS, "data.minibatches_per_block=4", "name=whole")
    assert lines(resumed.run_dir) == lines(whole.run_dir)
