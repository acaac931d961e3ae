"""Every experiment and every part of a model on a GPU: what is replayed as a CUDA graph is the step itself."""

import pytest
import torch

from attelbo.experiments.listing import choices, package_folder
from attelbo.training.graphs import GraphEngine
from companions import words_for, words_for_experiment

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CHOICES = choices([package_folder()])
PARTS = [(group, choice) for group in CHOICES if group.startswith("model/") for choice in CHOICES[group]]

# One epoch of eight minibatches: three steps to warm up, five as a graph.
STEPS = ("trainer.accelerator=gpu", "trainer.max_epochs=1", "data.train_size=80")


def same(runs, compose, capsys):
    """Train with graphs and without: all steps are recorded, and the losses are the same."""
    step = {}
    for graphs in ("false", "auto"):
        step[graphs] = runs.fit_composed(compose(f"trainer.cuda_graphs={graphs}")).lightning_module.stepper
    plain, replayed = step["false"], step["auto"]
    assert plain.terms == replayed.terms
    assert replayed.step == plain.step >= 6
    torch.testing.assert_close(replayed.block_values, plain.block_values, rtol=2e-2, atol=2e-2)
    assert isinstance(replayed.engine, GraphEngine)
    assert capsys.readouterr().err.partition("note: training goes on without CUDA graphs (")[2] == ""


@pytest.mark.parametrize("experiment", list(CHOICES["experiment"]))
def test_experiment(runs, experiment, capsys):
    words = words_for_experiment(experiment, runs.words("callbacks=none", *STEPS))
    words = [word.replace("windows_per_epoch=10", "windows_per_epoch=80") for word in words]
    same(runs, lambda *more: runs.compose([*words, *more]), capsys)


@pytest.mark.parametrize(("group", "choice"), PARTS, ids=[f"{group}={choice}" for group, choice in PARTS])
def test_part(runs, group, choice, capsys):
    part = group.removeprefix("model/")
    words = ("callbacks=none", *words_for(part, choice), *STEPS)
    without = (f"model.{part}.hidden=[8]",)  # a convolution has no such thing
    same(runs, lambda *more: runs.configure(*words, *more, without=without), capsys)
