"""Classifiers of standardized and augmented images: against a plain loop, and resumed, bit for bit."""

import json

import pytest
import torch
from torch.nn import functional as F

from attelbo.cli import main
from attelbo.data.loader import training_order
from attelbo.errors import ConfigError
from attelbo.experiments import untrained
from attelbo.experiments.configuration import compose
from attelbo.models import Classifier, load_run
from attelbo.seeding import derive_seed
from equal_runs import same

WORDS = (
    "model=vit",
    "model.patch=4",
    "model.dim=8",
    "model.attention.heads=2",
    "model.network.layers=1",
    "model.network.hidden=16",
    "model.standardize=true",
    "data.binarize=none",
    "data.crop=1",
    "data.flip=true",
)


def test_training_equals_a_plain_loop_over_images_that_are_standardized_by_hand(runs):
    words = runs.words(*WORDS)
    model, data = untrained(*words)
    assert isinstance(model, Classifier)
    _, plain = untrained(*(word for word in words if "crop" not in word and "flip" not in word))
    x = plain.materialize(torch.arange(100), "train").x.double()
    mean, std = (moment.float().view(1, 1, 1) for moment in (x.mean(), x.std(correction=0)))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step = 0
    for epoch in range(2):
        for rows in training_order(100, 0, epoch).split(10):
            torch.manual_seed(derive_seed(0, "step", step, 0))
            batch = data.materialize(rows, "train")
            assert batch.y is not None
            optimizer.zero_grad()
            F.cross_entropy(model.head(model.body((batch.x - mean) / std)), batch.y).backward()
            optimizer.step()
            step += 1
    trained = runs.fit(*WORDS).lightning_module
    assert trained.standardize.mean.item() == pytest.approx(mean.item(), rel=1e-6)
    assert trained.standardize.std.item() == pytest.approx(std.item(), rel=1e-6)
    for (name, ours), by_hand in zip(trained.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_goes_on_bit_for_bit_and_its_model_knows_the_images_without_them(runs):
    whole = runs.train(*WORDS)
    first = runs.train(*WORDS, "trainer.max_epochs=1", "name=first")
    rest = runs.train(*WORDS, f"ckpt={first.run_dir / 'checkpoints' / 'last.ckpt'}", "name=rest")
    assert same(runs.checkpoint(whole)["state_dict"], runs.checkpoint(rest)["state_dict"])
    model, data = load_run(whole.run_dir)
    assert isinstance(model, Classifier)
    assert model.standardize is not None
    torch.testing.assert_close(model.standardize.mean.flatten(), data.pixel_moments()[0].float())


def test_replicas_are_the_runs_by_themselves(runs):
    words = runs.words(*WORDS, "trainer.max_epochs=1", "callbacks=none", "trainer.replicas=2", "name=two")
    assert main(["train", *words]) == 0
    alone = runs.train(*WORDS, "trainer.max_epochs=1", "callbacks=none", "seed=1")
    results = [json.loads(p.read_text())["metrics"] for p in runs.folder.glob("two/**/result.json")]
    assert len(results) == 2
    expected = json.loads((alone.run_dir / "result.json").read_text())["metrics"]["test/loss"]
    assert any(metrics["test/loss"] == pytest.approx(expected, rel=1e-4) for metrics in results)


def test_a_model_with_a_likelihood_standardizes_nothing():
    with pytest.raises(ConfigError, match=r"model\.standardize"):
        untrained("model=vae", "data=digits", "+model.standardize=true")
    assert compose("train", ["data=digits"]).config["data"]["crop"] == 0
