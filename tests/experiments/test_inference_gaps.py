"""The gaps of the bound of whole models: they add up, are what the ELBO and the NLL leave, and are there for all that
has real latents and a bound."""

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation import inference_gaps
from attelbo.latent import best_normal
from companions import words_for

SMALL = ("trainer.max_epochs=1", "evaluation.gaps=true")
NAMES = ("annealed_nll", "sampling_gap", "approximation_gap", "amortization_gap")


@pytest.fixture(autouse=True)
def few_chains(monkeypatch):
    monkeypatch.setattr(inference_gaps, "N_CHAINS", 4)
    monkeypatch.setattr(inference_gaps, "N_TEMPERATURES", 10)


@pytest.fixture(scope="module")
def trained(shared_runs):
    """A VAE that has learned something."""
    words = ("data.train_size=1000", "model.encoder.hidden=[50]", "model.decoder.hidden=[50]", "model.latent_dim=10")
    done = shared_runs.train(*words, "trainer.max_epochs=15", "optimizer.lr=3e-3")
    return SimpleNamespace(run=done.run_dir, folder=shared_runs.folder)


def test_they_add_up_to_what_the_bound_lacks(trained, capsys):
    arguments = [f"run={trained.run}", "gaps=true", "n_samples=500", "n_images=40"]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((trained.run / "evaluation-test.json").read_text())["metrics"]
    nll, sampling, approximation, amortization = (metrics[f"test/{name}"] for name in NAMES)
    assert approximation > 0
    assert amortization > 0
    # The bound is that of all images, these are 40 of them.
    off = 3 * metrics["test/nll_std_error"]
    assert -metrics["test/elbo"] - nll == pytest.approx(approximation + amortization, abs=off)
    # The same images, both estimates.
    assert metrics["test/nll"] - nll == pytest.approx(sampling, abs=0.05)
    assert "NLL, annealed" in printed
    assert "nats (4 chains of 10, 40 images)" in printed
    assert main(["evaluate", *arguments]) == 0
    again = json.loads((trained.run / "evaluation-test.json").read_text())["metrics"]
    assert again == metrics


def test_of_one_image_there_is_no_standard_error(trained):
    assert main(["evaluate", f"run={trained.run}", "gaps=true", "n_samples=10", "n_images=1"]) == 0
    metrics = json.loads((trained.run / "evaluation-test.json").read_text())["metrics"]
    assert {f"test/{name}" for name in NAMES} <= metrics.keys()
    assert not any(name.endswith("gap_std_error") for name in metrics)


KNOWN = [
    *(words_for("posterior", name) for name in ("full_normal", "hamiltonian", "iaf", "low_rank_normal", "planar")),
    *(words_for("prior", name) for name in ("class_conditional_normal", "maf", "mixture_of_gaussians", "vamp")),
    words_for("likelihood", "normal"),
    ("model=autoencoder_kl",),
    ("model=text_vae",),
]


@pytest.mark.parametrize("words", KNOWN, ids=" ".join)
def test_models_with_real_latents_and_a_bound(runs, words, monkeypatch):
    monkeypatch.setattr(inference_gaps, "best_normal", partial(best_normal, n_steps=10))
    done = runs.train(*words, *SMALL)
    metrics = json.loads((done.run_dir / "result.json").read_text())["metrics"]
    assert all(math.isfinite(metrics[f"test/{name}"]) for name in NAMES)


OTHERS = [
    *(words_for("posterior", name) for name in ("deterministic", "finite_scalar", "gamma", "von_mises_fisher")),
    words_for("prior", "two_stage"),
    ("model=draw",),
    ("model=gpt",),
]


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_others_are_refused_before_they_are_trained(runs, words):
    with pytest.raises(ConfigError, match=r"gaps=true: .*annealing here moves latents that are real numbers"):
        runs.train(*words, *SMALL)


def test_one_that_sums_over_labels_is_refused_too(runs):
    # Annealed was log p(x|y) with the label of the row, sampled beside it log p(x).
    with pytest.raises(ConfigError, match=r"gaps=true: .*M2 sums over labels, and annealing here would be given one"):
        runs.train("model=m2", *SMALL)
