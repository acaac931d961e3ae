"""Runs of models without a bound, from training to report."""

import json

import pytest
import torch

from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble
from attelbo.experiments.report import write_report
from attelbo.experiments.tables import print_result
from attelbo.files import read_metrics

AUTOENCODER = ("model=rae_gp", "callbacks=early_stopping", "trainer.max_epochs=3", "trainer.log_every_n_steps=10")


@pytest.fixture(scope="module")
def done(shared_runs):
    return shared_runs.train(*AUTOENCODER)


def result_of(outcome):
    return json.loads((outcome.run_dir / "result.json").read_text())


def test_only_what_there_is_is_measured(done):
    metrics = result_of(done)["metrics"]
    assert set(metrics) == {"test/loss", "test/reconstruction", "test/active_units"}
    curves = read_metrics(done.run_dir / "metrics.csv")
    assert {"train/loss", "train/reconstruction", "val/loss"} <= set(curves)
    assert not {"train/elbo", "val/elbo", "train/kl", "val/kl", "test/nll"} & set(curves)


def test_the_best_epoch_is_that_of_the_lowest_loss(runs):
    # The learning rate ruins the model after the first epoch.
    words = ("optimizer=sgd", "optimizer.momentum=0.0", "optimizer.nesterov=false", "optimizer.lr=0.5")
    outcome = runs.train("model=ae", *words, "trainer.max_epochs=4")
    losses = [value for _, value in read_metrics(outcome.run_dir / "metrics.csv")["val/loss"]]
    best = runs.checkpoint(outcome, "best")
    assert losses.index(min(losses)) == best["epoch"] < 3
    assert result_of(outcome)["monitor"] == "lowest val/loss"


def test_a_bound_is_what_is_watched_where_there_is_one(runs):
    outcome = runs.train("trainer.max_epochs=1")
    assert result_of(outcome)["monitor"] == "highest val/elbo"
    assert result_of(runs.train("trainer.max_epochs=1", "evaluation.checkpoint=last"))["monitor"] is None


def test_table_and_report_say_so(done, capsys):
    print_result(result_of(done), done.run_dir)
    table = capsys.readouterr().out
    assert "no bound" in table
    assert "checkpoint, lowest val/loss" in table
    assert "bits/dim" not in table
    page = write_report(done.run_dir).read_text()
    assert "no bound" in page
    assert ">ELBO<" not in page


# -- a cross-entropy of grey levels ------------------------------------------------------------------------

GREY = ("model.likelihood.allow_levels=true", "data.binarize=none")


@pytest.fixture(scope="module")
def grey(shared_runs):
    return shared_runs.train(*GREY, "name=grey", "callbacks=early_stopping", "trainer.log_every_n_steps=10")


def test_nothing_is_called_a_bound_where_levels_have_a_cross_entropy(grey):
    result = result_of(grey)
    metrics = result["metrics"]
    means = {"loss", "distortion_rate", "reconstruction", "kl"}
    terms = ("mutual_information", "aggregate_kl", "total_correlation", "dimension_wise_kl")
    information = {f"{name}{end}" for name in terms for end in ("", "_std_error")}
    assert set(metrics) == {f"test/{name}" for name in means | information | {"active_units"}}
    assert metrics["test/distortion_rate"] == pytest.approx(metrics["test/reconstruction"] + metrics["test/kl"])
    curves = read_metrics(grey.run_dir / "metrics.csv")
    for split in ("train", "val"):
        assert {name for name in means if f"{split}/{name}" in curves} == means
        assert not {f"{split}/elbo", f"{split}/bits_per_dim"} & set(curves)
    assert result["monitor"] == "lowest val/distortion_rate"


def test_table_and_report_say_what_it_is_instead(grey, capsys):
    print_result(result_of(grey), grey.run_dir)
    table, page = capsys.readouterr().out, write_report(grey.run_dir).read_text()
    for told in (table, page):
        assert "no bound: there is neither ELBO nor NLL" in told
        assert "a cross-entropy: no likelihood of grey levels" in told
    assert ">Reconstruction + KL<" in page
    assert "mutual information" in table
    for name in ("ELBO", "NLL", "bits/dim"):
        assert f"\n {name} " not in table
        assert f">{name[:1].upper()}{name[1:]}<" not in page


def test_binary_data_have_their_bound_whatever_is_allowed(runs):
    metrics = result_of(runs.train(GREY[0], "trainer.max_epochs=1"))["metrics"]
    assert {"test/elbo", "test/nll", "test/bits_per_dim"} <= set(metrics)


@pytest.mark.parametrize("model", ["air", "draw", "ladder_vae", "m2", "vdvae"])
def test_models_of_every_structure_are_told_of_levels(runs, model):
    words = ("~experiment", f"model={model}", GREY[0])
    grey, _ = assemble(runs.compose([*words, GREY[1]]))
    assert not grey.bounded
    assert not grey.has_bits
    binary, _ = assemble(runs.compose([*words, "data.binarize=threshold"]))
    assert binary.bounded
    assert binary.has_bits


def test_levels_are_not_coded_by_a_cross_entropy(runs):
    with pytest.raises(
        ConfigError, match=r"^evaluation\.compress=true: .* and a discrete likelihood of what the images are$"
    ):
        runs.train(*GREY, "evaluation.compress=true")


# -- points ----------------------------------------------------------------------------------------------


def test_objectives_that_take_a_density_refuse_points(runs):
    for objective in ("elbo", "iwae"):
        with pytest.raises(ConfigError, match=r"takes a density q\(z\|x\), and DeterministicPosterior .*RAE"):
            runs.train("model/posterior=deterministic", f"model/objective={objective}")


def test_an_autoencoder_takes_no_distribution(runs):
    with pytest.raises(ConfigError, match=r"RAE is not defined for DiagonalNormalPosterior, .*; it takes Point"):
        runs.train("model/objective=rae")


@pytest.mark.parametrize("name", ["ae", "rae_l2", "rae_sn"])
def test_the_named_models_learn(runs, name):
    words = ("model.encoder.hidden=[64]", "model.decoder.hidden=[64]", "model.latent_dim=8", "optimizer.lr=1e-2")
    metrics = result_of(
        runs.train(f"model={name}", *words, "data.train_size=1000", "data.batch_size=25", "trainer.max_epochs=5")
    )["metrics"]
    assert metrics["test/reconstruction"] < 22  # of the mean image: 27.6
    assert metrics["test/active_units"] == 8


def test_a_model_that_names_nothing_keeps_its_last_epoch(runs, monkeypatch):
    from attelbo.latent import RAE

    monkeypatch.setattr(RAE, "watched", None)
    outcome = runs.train("model=ae")
    assert result_of(outcome)["monitor"] is None
    best, last = (runs.checkpoint(outcome, name) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    with pytest.raises(ConfigError, match=r"^callbacks: no metric tells when .* callbacks\.early_stopping\.monitor"):
        runs.train("model=ae", "callbacks=early_stopping")
