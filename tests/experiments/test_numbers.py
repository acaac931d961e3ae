"""Remarks on numbers that say less than they seem to."""

import json
import math

import pytest
import torch

from attelbo.experiments.numbers import remarks
from attelbo.experiments.report import write_report
from attelbo.experiments.tables import print_result
from attelbo.latent.importance import estimate_log_likelihood

MEASURES = [
    ["nll", "NLL", "nats", 2, "100 importance samples, 50 images", "less"],
    ["kl", "KL", "nats", 2, "", ""],
    ["active_units", "active units", "of 16 latent dimensions", 0, "", ""],
    ["effective_sample_size", "effective samples", "carry the weight of all those of an image", 1, "", ""],
]
SOUND = {"test/nll": 90.0, "test/kl": 20.0, "test/active_units": 9.0, "test/effective_sample_size": 20.0}


def result(samples: int = 100, **metrics: float) -> dict:
    changed = {f"test/{name}": value for name, value in metrics.items()}
    return {"metrics": SOUND | changed, "measures": MEASURES, "nll_samples": samples, "seconds": {}}


def test_a_sound_result_has_no_remark():
    assert list(remarks(result(), "test")) == []
    assert list(remarks({}, "test")) == []


def test_a_posterior_that_has_collapsed_is_told():
    (remark,) = remarks(result(active_units=0.0, kl=-0.001), "test")
    assert remark.startswith("no latent dimension is active, the KL is 0.00 nats: the posterior has collapsed")
    assert list(remarks(result(active_units=0.0, kl=-0.001), "validation")) == []
    without_kl = result(active_units=0.0)
    del without_kl["metrics"]["test/kl"]
    assert list(remarks(without_kl, "test")) == []  # an autoencoder has no prior to collapse onto


@pytest.mark.parametrize(("samples", "effective", "told"), [(100, 4.9, True), (100, 5.1, False), (49, 1.2, False)])
def test_too_few_effective_samples_are_told(samples, effective, told):
    found = list(remarks(result(samples, effective_sample_size=effective), "test"))
    assert len(found) == told
    assert all("the NLL rests on 4.9 of 100 importance samples" in remark for remark in found)


def test_with_five_effective_samples_the_bias_is_a_tenth_of_a_nat():
    """Weights of a log-normal with mean 1, whose log-likelihood is 0."""
    variance, n_samples, n_rows = 1.0, 8, 40_000
    noise = torch.randn(n_samples, n_rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = noise * math.sqrt(variance) - variance / 2
    estimate = estimate_log_likelihood(lambda k: weights[:k], n_samples, n_samples)
    effective = 1 / float(estimate.effective_sample_size.reciprocal().mean())
    assert 3.5 < effective < 5
    assert -float(estimate.log_likelihood.mean()) == pytest.approx(1 / (2 * effective), abs=0.03)


def test_remarks_stand_below_the_table_and_on_the_page(tmp_path, capsys):
    run_dir = tmp_path / "a" / "20260101-000000-abcd1234"
    run_dir.mkdir(parents=True)
    collapsed = result(active_units=0.0, kl=0.01)
    print_result(collapsed, run_dir)
    printed = capsys.readouterr().out
    assert "note: no latent dimension is active, the KL is 0.01 nats" in printed
    assert printed.index("effective samples") < printed.index("note:")
    (run_dir / "result.json").write_text(json.dumps(collapsed))
    assert "Note: no latent dimension is active, the KL is 0.01 nats" in write_report(run_dir).read_text()


def test_what_stands_behind_a_plus_or_minus_is_told(tmp_path, capsys):
    """Elsewhere it is the 95 % interval over seeds."""
    print_result(result(), tmp_path)
    assert ": test\n" in capsys.readouterr().out.replace(" \n", "\n").replace("\n\n", "\n")
    print_result(result(nll_std_error=0.4), tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert ": test, ± standard error NLL 90.00 ±0.40 nats" in printed
