"""A model that is no VAE, on data that are no images, from its configuration to its report."""

import json
import math
import re

import pytest
import torch

from attelbo.cli import main
from attelbo.experiments import run
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.tables import print_result
from attelbo.files import read_metrics
from attelbo.models import load_run
from chains import TRUE_ENTROPY, Chain


@pytest.fixture(scope="module", autouse=True)
def allowed():
    """Configurations may name what this folder has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTELBO_PACKAGES", "other, chains")
        yield


def configured(runs, *words):
    config = runs.configure("callbacks=default", "optimizer.lr=0.1", "trainer.max_epochs=12", *words)
    config["data"] = {"_target_": "chains.Chains", "name": "chains", "seed": 0, "batch_size": 10}
    config["model"] = {"_target_": "chains.Chain"}
    config["callbacks"]["walk"] = {"_target_": "chains.Walk", "every_n_epochs": 5}
    return config


@pytest.fixture(scope="module")
def done(shared_runs):
    return run.train(configured(shared_runs), [], {}, None)


def test_it_learns_and_is_measured_by_its_own_results(done):
    result = RunDirectory(done.run_dir).read("result.json")
    assert result is not None
    assert set(result["metrics"]) == {"test/loss", "test/perplexity"}
    model, data = load_run(done.run_dir)
    assert isinstance(model, Chain)
    batch = data.materialize(torch.arange(401), "test")
    assert batch.y is not None
    with torch.no_grad():
        logits = model.table(batch.x).double()
    nats = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.y.flatten()))
    assert result["metrics"]["test/loss"] == pytest.approx(nats, rel=1e-6)
    assert result["metrics"]["test/perplexity"] == pytest.approx(math.exp(nats), rel=1e-6)
    assert abs(nats - TRUE_ENTROPY) < 0.08  # of 3,208 tokens: standard error 0.018
    assert result["monitor"] == "lowest val/loss"
    assert min(read_metrics(done.run_dir / "metrics.csv")["val/loss"])[1] < math.log(4)


def test_only_what_it_can_make_is_in_the_media(done):
    names = {path.name for path in (done.run_dir / "media").iterdir()}
    assert names == {"walk.txt", "walk-epoch0005.txt", "walk-epoch0010.txt"}
    text = (done.run_dir / "media" / "walk.txt").read_text()
    assert len(text) == 51
    assert set(text) <= set("a<b&")


def test_table_and_report_show_its_numbers_and_texts(done, capsys):
    print_result(RunDirectory(done.run_dir).read("result.json"), done.run_dir)
    table = capsys.readouterr().out
    assert "nats per token" in table
    assert "of the next token" in table
    assert "walk.txt" in table
    assert "ELBO" not in table
    page = (done.run_dir / "report.html").read_text()
    assert ">nats per token<" in page
    assert ">Texts<" in page
    text = (done.run_dir / "media" / "walk.txt").read_text()
    assert text.replace("&", "&amp;").replace("<", "&lt;") in page
    assert text not in page
    assert "Walk, epoch 10" in page
    assert ">Perplexity<" in page


def test_evaluate_repeats_it_with_its_defaults(done, capsys):
    assert main(["evaluate", f"run={done.run_dir}", "accelerator=cpu"]) == 0
    again = json.loads((done.run_dir / "evaluation-test.json").read_text())
    assert again["metrics"] == json.loads((done.run_dir / "result.json").read_text())["metrics"]
    assert "nats per token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("n_samples=5", "n_samples=5: .* is the run of a Chain on chains: no likelihood to estimate"),
        ("chunk=5", "chunk=5: .*: no likelihood to estimate"),
        ("quality=true", "quality=true: .*: no latent variables of images"),
        ("disentanglement=true", "disentanglement=true: .*: no latent variables of images"),
    ],
)
def test_what_is_for_other_models_is_refused_in_one_line(done, capsys, word, why):
    assert main(["evaluate", f"run={done.run_dir}", "accelerator=cpu", word]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.match(f"error: {why}", captured.err), captured.err


def test_pictures_of_it_are_refused_in_one_line(done, capsys):
    assert main(["reconstruct", f"run={done.run_dir}", "accelerator=cpu"]) == 2
    assert "is the run of a Chain on chains: no images to draw" in capsys.readouterr().err
