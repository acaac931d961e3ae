"""A Bernoulli likelihood around base rates of the training images: in a run, resumed, continued, and as replicas."""

import json

import lightning.pytorch as pl
import pytest
import torch

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments import untrained
from attelbo.models import load_run
from equal_runs import same

WORDS = ("model.likelihood.base_rates=true", "data.binarize=dynamic", "trainer.max_epochs=2")


def test_training_begins_at_the_base_rates(runs):
    model = runs.fit(*WORDS, "trainer.max_steps=1", "optimizer.lr=1e-12").lightning_module
    _, levels = untrained(*runs.words("data.binarize=none", "model.likelihood.allow_levels=true"))
    rates = levels.materialize(torch.arange(levels.n_rows("train")), "train").x.mean(0).clamp(1e-3, 1 - 1e-3)
    torch.testing.assert_close(model.likelihood.base_logits, rates.logit(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.likelihood.mean(torch.zeros(1, *rates.shape))[0], rates)


def test_a_run_goes_on_bit_for_bit_and_its_model_knows_the_rates_without_the_images(runs):
    whole = runs.train(*WORDS)
    first = runs.train(*WORDS, "trainer.max_epochs=1", "name=first")
    rest = runs.train(*WORDS, f"ckpt={first.run_dir / 'checkpoints' / 'last.ckpt'}", "name=rest")
    assert same(runs.checkpoint(whole)["state_dict"], runs.checkpoint(rest)["state_dict"])
    model, data = load_run(whole.run_dir)
    torch.testing.assert_close(model.likelihood.base_logits.sigmoid(), data.mean().clamp(1e-3, 1 - 1e-3).float())


def test_weights_of_other_images_keep_the_rates_that_they_were_trained_with(runs):
    first = runs.train(*WORDS, "name=first")
    other = runs.train(*WORDS, "data.train_size=20", f"init.run={first.run_dir}", "name=other")
    rates = [runs.checkpoint(run)["state_dict"]["likelihood.base_logits"] for run in (first, other)]
    assert torch.equal(*rates)


def test_replicas_are_the_runs_by_themselves(runs):
    words = runs.words(*WORDS, "callbacks=none", "trainer.replicas=2", "name=two")
    assert main(["train", *words]) == 0
    alone = runs.train(*WORDS, "callbacks=none", "seed=1")
    results = [json.loads(p.read_text())["metrics"] for p in runs.folder.glob("two/**/result.json")]
    assert len(results) == 2
    expected = json.loads((alone.run_dir / "result.json").read_text())["metrics"]["test/elbo"]
    assert any(metrics["test/elbo"] == pytest.approx(expected, rel=1e-4) for metrics in results)


def test_what_has_no_base_rates_is_refused(runs):
    with pytest.raises(ConfigError, match=r"base_rates must be false: AIR paints"):
        untrained("model=air", "data=digits", "data.binarize=threshold", "model/likelihood=bernoulli", WORDS[0])
    model, data = untrained(*runs.words(*WORDS))
    trainer = pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ConfigError, match="base_rates: it takes a data module of images"):
        trainer.fit(model, data.train_dataloader(), data.val_dataloader())
