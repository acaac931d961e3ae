"""`attelbo compare --udr`: how far the seeds of a setting agree in their latents."""

import csv

import pytest
import torch

from attelbo.cli import main
from attelbo.metrics import disentanglement_ranking
from attelbo.models import VariationalAutoencoder, load_run


@pytest.fixture(scope="module")
def seeds(shared_runs):
    """Two settings, three runs of the one and one of the other."""
    words = ("trainer.max_epochs=1", "model.latent_dim=3", "callbacks=checkpoint")
    outcomes = [shared_runs.train(*words, f"seed={seed}") for seed in (0, 1, 2)]
    shared_runs.train("trainer.max_epochs=1", "model.latent_dim=2", "callbacks=checkpoint")
    return [outcome.run_dir for outcome in outcomes]


def test_each_run_has_its_own_and_the_setting_their_mean(shared_runs, seeds, tmp_path, capsys):
    table = tmp_path / "runs.csv"
    assert main(["compare", str(shared_runs.folder), "--udr", "spearman", "--runs", "-o", str(table)]) == 0
    codes, kls = [], []
    for folder in seeds:
        model, data = load_run(folder)
        assert isinstance(model, VariationalAutoencoder)
        data.setup()
        with torch.no_grad():
            evidence = model.evidence(data.materialize(torch.arange(data.n_rows("test")), "test").x)
        codes.append(evidence.posterior.mean)
        kls.append(evidence.kl.mean(0))
    expected = disentanglement_ranking(codes, kls, "spearman")
    rows = {row["run"]: row["test/udr"] for row in csv.DictReader(table.read_text().splitlines())}
    assert [float(rows[str(folder)]) for folder in seeds] == pytest.approx(expected, abs=1e-4)
    assert sorted(rows.values())[0] == ""  # a seed by itself agrees with nobody
    shown = capsys.readouterr().out
    assert "UDR" in shown
    assert f"{sum(expected) / 3:.3f}"[:4] in shown
    assert f"{expected[0]:.3f} ±" not in shown  # the seeds' values are made of the same pairs
    assert "UDR is the mean over seeds" in " ".join(shown.split())
    assert not list(shared_runs.folder.rglob("evaluation-*.json"))


@pytest.mark.usefixtures("seeds")
def test_it_is_a_column_beside_those_that_are_asked_for(shared_runs, tmp_path):
    table = tmp_path / "table.md"
    words = ["compare", str(shared_runs.folder), "--udr", "spearman", "-o", str(table)]
    assert main([*words, "--metric", "nll", "--metric", "elbo"]) == 0
    assert "| seeds | NLL, nats | ELBO, nats | UDR | time, s |" in table.read_text().splitlines()[0]
    assert main([*words, "--metric", "udr"]) == 0
    assert table.read_text().splitlines()[0].endswith("| seeds | UDR | time, s |")


def test_what_cannot_be_compared_so(shared_runs, seeds, runs, tmp_path, capsys):
    assert main(["compare", str(seeds[0]), "--udr", "lasso"]) == 2
    assert capsys.readouterr().err == (
        "error: --udr lasso: it takes at least two runs that differ in nothing but their seed\n"
    )
    assert main(["compare", str(shared_runs.folder), "--udr", "pearson"]) == 2
    assert "invalid choice: 'pearson'" in capsys.readouterr().err
    for seed in (0, 1):
        runs.train("model/posterior=iaf", "trainer.max_epochs=1", f"seed={seed}")
    assert main(["compare", str(runs.folder), "--udr", "lasso"]) == 2
    assert "the KL of each latent by itself is not known" in capsys.readouterr().err
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    words = ("--udr", "spearman", "--metric", "udr", "-o", str(page), "-o", str(table))
    assert main(["compare", str(shared_runs.folder), str(runs.folder), *words]) == 0
    note = "no UDR of model.posterior=InverseAutoregressivePosterior model.latent_dim=2: "
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in page.read_text()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["test/udr_n"], row["test/udr_half_width"]) for row in rows] == [("3", ""), ("0", ""), ("0", "")]
