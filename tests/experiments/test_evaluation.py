"""Bound and likelihood of a trained model, against sums written by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch.distributions import Bernoulli, Normal
from torch.nn import functional as F

from attelbo.cli import main
from attelbo.data.loader import spread_rows
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.evaluation import (
    Conditions,
    evaluate_bound,
    evaluate_likelihood,
    evaluate_model,
    suitable_chunk,
)
from attelbo.experiments.evaluation.likelihood import likelihood_measures
from attelbo.experiments.numbers import remarks
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.trained import pick_device
from attelbo.latent import estimate_log_likelihood
from attelbo.latent.distributions import DiagonalNormal
from attelbo.seeding import derive_seed

CPU = torch.device("cpu")


def settings(
    n_samples: int = 10, n_images: int | None = None, batch_size: int = 100, chunk: int | None = 100
) -> Evaluation:
    return Evaluation(n_samples, n_images, batch_size, chunk, checkpoint="best")


@pytest.fixture(scope="module")
def trained(shared_runs):
    trainer = shared_runs.fit("trainer.max_epochs=3", "optimizer.lr=0.01")
    return trainer.lightning_module.eval(), trainer.datamodule


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(DiagonalNormal, "rsample", lambda self, n: self.mean.expand(n, *self.mean.shape))


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("split", ["trained", "validation", "test"])
@pytest.mark.parametrize("batch_size", [1000, 7])
@torch.no_grad()
def test_the_bound_is_the_mean_over_every_row(trained, split, batch_size):
    model, data = trained
    n = data.n_rows(split)
    x = data.materialize(torch.arange(n), split).x
    mean, log_std = model.posterior.head(model.encoder(x).flatten(1)).double().chunk(2, -1)
    kl = 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(1)
    logits = model.decoder(mean.float()).double()
    reconstruction = F.binary_cross_entropy_with_logits(logits, x.double(), reduction="none").flatten(1).sum(1)
    elbo = -reconstruction - kl
    active = (mean.var(0, correction=0) > 0.01).sum()
    expected = {
        "loss": -elbo.mean(),
        "elbo": elbo.mean(),
        "reconstruction": reconstruction.mean(),
        "kl": kl.mean(),
        "bits_per_dim": -elbo.mean() / 64 / math.log(2),
        "active_units": active,
    }
    key = {"trained": "train", "validation": "val", "test": "test"}[split]
    got = evaluate_bound(model, data, Conditions(split, settings(batch_size=batch_size)))
    assert got.keys() == {f"{key}/{name}" for name in expected}
    for name, value in expected.items():
        assert got[f"{key}/{name}"] == pytest.approx(float(value), rel=1e-5), name


def test_the_bound_does_not_depend_on_what_was_drawn_before(trained):
    model, data = trained
    first = evaluate_bound(model, data, Conditions("test", settings()))
    torch.manual_seed(99)
    assert evaluate_bound(model, data, Conditions("test", settings())) == first
    assert evaluate_bound(model, data, Conditions("test", settings(), seed=1))["test/elbo"] != first["test/elbo"]


# -- importance sampling -------------------------------------------------------------------------------


class Keeper:
    """A model that keeps the log-weights that it gave for each batch of images."""

    equal_weights = False

    def __init__(self, model) -> None:
        self.model = model
        self.given: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def weight_sampler_of(self, batch):
        draw, given = self.model.weight_sampler_of(batch), []
        self.given.append((batch.x, given))

        def keep(n_samples):
            given.append(draw(n_samples))
            return given[-1]

        return keep


@pytest.mark.parametrize(("n_samples", "chunk"), [(10, 3), (10, 100), (7, 7), (1, 1), (90, None)])
def test_exactly_so_many_samples_of_exactly_so_many_images(trained, n_samples, chunk):
    model, data = trained
    keeper = Keeper(model)
    evaluate_likelihood(keeper, data, Conditions("test", settings(n_samples, 12, 5, chunk)))  # pyright: ignore[reportArgumentType]
    x = data.materialize(spread_rows(12, data.n_rows("test")), "test").x
    assert torch.equal(torch.cat([batch for batch, _ in keeper.given]), x)
    for batch, given in keeper.given:
        assert torch.cat(given).shape == (n_samples, len(batch))
        assert max(len(weights) for weights in given) == min(n_samples, chunk or n_samples)


def test_some_images_of_a_split_sorted_by_class_are_of_all_classes(trained, monkeypatch):
    """As the test images of the binarized MNIST that is passed around are."""
    model, data = trained
    y = data.materialize(torch.arange(data.n_rows("test")), "test").y
    in_order, asked = y.argsort(), []

    def materialize(index, split):
        asked.append(y[in_order[index]])
        return type(data).materialize(data, in_order[index], split)

    monkeypatch.setattr(data, "materialize", materialize)
    evaluate_likelihood(model, data, Conditions("test", settings(1, len(y) // 4, 10)))
    share = torch.cat(asked).bincount(minlength=10) / y.bincount(minlength=10)
    assert 0.15 < float(share.min()) <= float(share.max()) < 0.35


def test_the_likelihood_is_the_logarithm_of_the_mean_weight(trained):
    model, data = trained
    numbers = settings(n_samples=50, n_images=20, batch_size=20, chunk=15)
    got = evaluate_likelihood(model, data, Conditions("test", numbers))
    keeper = Keeper(model)
    assert evaluate_likelihood(keeper, data, Conditions("test", numbers)) == got  # pyright: ignore[reportArgumentType]
    ((_, given),) = keeper.given
    weights = torch.cat(given).double()
    nll = -(weights.exp().mean(0)).log()
    assert got["test/nll"] == pytest.approx(float(nll.mean()), rel=1e-6)
    assert got["test/nll_std_error"] == pytest.approx(float(nll.std() / 20**0.5), rel=1e-5)
    share = weights.softmax(0)
    assert got["test/effective_sample_size"] == pytest.approx(20 / float(share.square().sum()), rel=1e-5)


def test_rows_that_rest_on_a_single_sample_are_not_hidden_by_others(trained, monkeypatch):
    """Of 20 rows four have one sample that outweighs the rest: 200 others are as good as one, and the mean over rows
    would be 40.2 effective samples of 50."""
    model, data = trained
    log_weights = torch.zeros(50, 20)
    log_weights[0, :4] = 30.0
    monkeypatch.setattr(model, "weight_sampler_of", lambda batch: lambda k: log_weights[:k])
    numbers = settings(n_samples=50, n_images=20, batch_size=20, chunk=50)
    got = evaluate_likelihood(model, data, Conditions("test", numbers))
    assert got["test/effective_sample_size"] == pytest.approx(20 / (4 / 1 + 16 / 50))
    measures = likelihood_measures(model, data, Conditions("test", numbers))
    told = remarks({"metrics": got, "measures": measures, "nll_samples": 50}, "test")
    assert "the NLL rests on 4.6 of 50 importance samples" in next(told)


@torch.no_grad()
def test_the_likelihood_is_that_of_a_loop_in_double_precision(trained):
    model, data = trained
    got = evaluate_likelihood(model, data, Conditions("test", settings(30, n_images=12, batch_size=6, chunk=8)))
    estimates = []
    for i, x in enumerate(data.materialize(spread_rows(12, data.n_rows("test")), "test").x.split(6)):
        torch.manual_seed(derive_seed(0, "likelihood", i))
        mean, log_std = (part.double() for part in model.posterior.head(model.encoder(x).flatten(1)).chunk(2, -1))
        noise = torch.cat([torch.randn(k, *mean.shape) for k in (8, 8, 8, 6)]).double()
        z = mean + log_std.exp() * noise
        x_given_z = Bernoulli(logits=model.decoder(z.float().flatten(0, 1)).double().unflatten(0, z.shape[:2]))
        log_joint = x_given_z.log_prob(x.double()).flatten(2).sum(2) + Normal(0.0, 1.0).log_prob(z).sum(2)
        log_q = Normal(mean, log_std.exp()).log_prob(z).sum(2)
        estimates.append((log_joint - log_q).logsumexp(0) - math.log(30))
    assert got["test/nll"] == pytest.approx(-float(torch.cat(estimates).mean()), rel=1e-6)


def test_the_encoder_runs_once_for_each_batch_of_images(trained):
    model, data = trained
    sizes = []
    hook = model.encoder.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    evaluate_likelihood(model, data, Conditions("test", settings(20, n_images=12, batch_size=5, chunk=3)))
    hook.remove()
    assert sizes == [5, 5, 2]


def test_the_chunk_changes_nothing_but_the_noise(trained):
    model, data = trained
    n = 4000
    rows = data.materialize(spread_rows(10, data.n_rows("test")), "test").x
    torch.manual_seed(0)
    error = estimate_log_likelihood(model.weight_sampler(rows), n, n).standard_error
    by_chunk = [
        evaluate_likelihood(model, data, Conditions("test", settings(n, 10, 10, chunk), seed))["test/nll"]
        for seed, chunk in enumerate((n, 1000, 300))
    ]
    noise = float(error.square().sum().sqrt() / 10)
    assert 0 < noise < 0.05
    for other in by_chunk[1:]:
        assert abs(other - by_chunk[0]) < 5 * noise * 2**0.5


def test_the_likelihood_is_above_the_bound(trained, tmp_path):
    model, data = trained
    result = evaluate_model(model, data, Conditions("test", settings(n_samples=200)), tmp_path)
    metrics = result["metrics"]
    assert -metrics["test/nll"] > metrics["test/elbo"]
    assert (result["nll_samples"], result["nll_images"]) == (200, data.n_rows("test"))


def test_a_single_image_has_no_standard_error(runs, capsys):
    run_dir = runs.train("trainer.max_epochs=1", "evaluation.n_images=1").run_dir
    assert main(["evaluate", f"run={run_dir}", "n_images=1", "n_samples=2", "probe=true", "accelerator=cpu"]) == 0
    assert main(["compare", str(run_dir)]) == 0
    metrics = json.loads((run_dir / "result.json").read_text())["metrics"]
    assert "test/nll" in metrics
    assert not [name for name, value in metrics.items() if not math.isfinite(value) or name.endswith("_std_error")]
    assert "nan" not in capsys.readouterr().out


def test_a_chunk_of_samples_fills_the_cache_and_is_never_empty():
    assert suitable_chunk(100 * 28 * 28, CPU) == 6  # 100 images of 784 pixels: 2 MB of float32 hold 668 of them
    assert suitable_chunk(100 * 3 * 64 * 64, CPU) == 1
    assert suitable_chunk(100 * 28 * 28, torch.device("cuda")) > 100


@pytest.mark.parametrize("name", ["n_samples", "n_images", "batch_size", "chunk"])
def test_numbers_out_of_range(name):
    numbers = {"n_samples": 1, "n_images": 1, "batch_size": 1, "chunk": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0"):
        settings(**numbers)


# -- the command ---------------------------------------------------------------------------------------


def test_evaluate_repeats_what_the_run_found(runs, capsys):
    outcome: run.Outcome = runs.train("evaluation.n_samples=10", "evaluation.n_images=20")
    found = json.loads((outcome.run_dir / "result.json").read_text())
    words = [f"run={outcome.run_dir}", "n_samples=10", "n_images=20", "accelerator=cpu"]
    assert main(["evaluate", *words]) == 0
    again = json.loads((outcome.run_dir / "evaluation-test.json").read_text())
    assert again["metrics"] == found["metrics"]
    assert (again["checkpoint"], again["seed"], again["nll_samples"]) == ("best", 0, 10)
    out = capsys.readouterr().out
    assert f"{found['metrics']['test/nll']:.2f}" in out

    assert main(["evaluate", *words, "split=validation", "checkpoint=last", f"data_dir={runs.folder}"]) == 0
    validation = json.loads((outcome.run_dir / "evaluation-validation.json").read_text())
    assert validation["checkpoint"] == "last"
    assert set(validation["metrics"]) == {name.replace("test/", "val/") for name in found["metrics"]}
    assert json.loads((outcome.run_dir / "result.json").read_text()) == found

    assert main(["evaluate", *words, "split=train"]) == 0
    trained_on = json.loads((outcome.run_dir / "evaluation-train.json").read_text())
    assert set(trained_on["metrics"]) == {name.replace("test/", "train/") for name in found["metrics"]}
    assert trained_on["nll_images"] == 20
    assert f"{trained_on['metrics']['train/nll']:.2f}" in capsys.readouterr().out
    assert main(["evaluate", *words, "split=train", "probe=true"]) == 2
    assert "probe=true: split=train" in capsys.readouterr().err

    (outcome.run_dir / "checkpoints" / "best.ckpt").unlink()
    status = RunDirectory(outcome.run_dir).status()
    RunDirectory(outcome.run_dir).write("status.json", {**status, "state": "interrupted"})
    assert main(["evaluate", *words]) == 0
    assert json.loads((outcome.run_dir / "evaluation-test.json").read_text())["checkpoint"] == "last"
    assert f"{outcome.run_dir} is interrupted, not done\n" in capsys.readouterr().err

    (outcome.run_dir / "evaluation-test.json").unlink()
    (outcome.run_dir / "evaluation-test.json").mkdir()
    assert main(["evaluate", *words]) == 2  # before anything is measured
    captured = capsys.readouterr()
    assert captured.err.endswith("evaluation-test.json: it cannot be written: Is a directory\n")
    assert captured.out == ""


def test_evaluate_refuses_a_number_out_of_range(tmp_path, capsys):
    assert main(["evaluate", f"run={tmp_path}", "n_samples=0"]) == 2
    assert capsys.readouterr().err == "error: n_samples must be at least 1, got 0\n"


def test_evaluate_of_no_run(tmp_path, capsys):
    assert main(["evaluate", f"run={tmp_path}"]) == 2
    assert "is no run directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("config.yaml", content) for content in ("a: [b", "", "a", "name: cut off")),
        *(("status.json", content) for content in ('{"st', "[]", '{"started": ""}')),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, capsys, name, content):
    (tmp_path / "config.yaml").write_text("name: small\n")
    (tmp_path / name).write_text(content)
    assert main(["evaluate", f"run={tmp_path}", "accelerator=cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name} cannot be read: ")
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def configuration(shared_runs) -> Path:
    """config.yaml of a run that is done."""
    return shared_runs.train("trainer.max_epochs=1").run_dir / "config.yaml"


def without(file, key, command):
    """The exit code of a command on a run whose configuration has lost a key; the file is restored."""
    before = file.read_text()
    content = node = yaml.safe_load(before)
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    del node[last]
    file.write_text(yaml.safe_dump(content))
    try:
        return main([*command, str(file.parent)])
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        *((key, f"{{file}} cannot be read: its {key} is missing") for key in ("tags", "optimizer", "scheduler")),
        *((key, f"{{file}} cannot be read: its {key} is missing") for key in ("model", "model._target_", "logger")),
        *((key, f"{{file}} cannot be read: its {key} is missing") for key in ("trainer.threads", "paths.output_dir")),
        *((key, f"{key}: is missing, and nothing goes without it [{{file}}]") for key in ("data.root", "model.prior")),
        ("model.prior._target_", "{key}: its file names no class, only {{}}; add _target_ to it [{file}]"),
        ("data.source._target_", "data.source: a part without _target_: {{}}; choose one with <group>=... [{file}]"),
    ],
)
def test_a_key_that_a_configuration_has_lost_is_named(configuration, capsys, key, told):
    assert without(configuration, key, ["evaluate", "accelerator=cpu"]) == 2
    assert capsys.readouterr().err == f"error: {told.format(key=key, file=configuration)}\n"


@pytest.mark.parametrize("key", ["evaluation", "callbacks", "trainer.max_epochs", "trainer.replicas", "model.encoder"])
@pytest.mark.parametrize("command", [["rerun"], ["fit-prior", "prior=maf"]])
def test_a_key_that_a_configuration_to_train_again_has_lost_is_named(configuration, capsys, key, command):
    runs = sorted(configuration.parents[1].iterdir())
    assert without(configuration, key, command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {key}: ")
    assert error.endswith(f" [{configuration}]\n")
    assert sorted(configuration.parents[1].iterdir()) == runs


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("status.json", "state", "zzz", "its state must be 'pending', 'running', 'done', 'pruned', 'failed' or"),
        ("status.json", "started", 3, "its started must be a valid datetime, got 3"),
        ("status.json", "attempts", "two", "its attempts must be a valid integer, got 'two'"),
        ("result.json", "metrics", None, "its metrics must be a mapping, got None"),
        ("result.json", "metrics", {"test/nll": [1]}, "its metrics.test/nll must be a valid number, got [1]"),
        ("result.json", "metrics", {"test/nll": 10**400}, "its metrics.test/nll must be a valid number, got ['1000"),
        ("result.json", "steps", 10**400, "its steps must be a valid integer, got ['1000"),
        ("result.json", "measures", [["nll"]], "its measures.0.1 is missing"),
        ("result.json", "seconds", {"train": "long"}, "its seconds.train must be a valid number, got 'long'"),
        ("config.yaml", "init", [1], "its init must be a mapping, got [1]"),
        ("config.yaml", "trainer", {"threads": -1}, "its trainer.threads must be greater than or equal to 1, got -1"),
        ("config.yaml", "seed", True, "its seed must be a valid integer, got True"),
        (".hydra/choices.yaml", "model", ["vae"], "its model must be a valid string, got ['vae']"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(runs, capsys, name, key, value, told):
    run_dir = runs.train("trainer.max_epochs=1").run_dir
    file = run_dir / name
    content = yaml.safe_load(file.read_text()) | {key: value}
    file.write_text(json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content))
    capsys.readouterr()
    assert main(["compare", str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file} cannot be read: {told}")
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match="accelerator=gpu: this machine has no GPU"):
        pick_device("gpu")
    assert pick_device("auto") == pick_device("cpu") == CPU
