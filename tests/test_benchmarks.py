"""The benchmark compares like with like, and its arithmetic, its turns and its tables are right."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import data, data_path, environments, papers, readme, replicas, report, startup, tables, training
from benchmarks.__main__ import parsed
from benchmarks.contestants.bare_loop import train_epoch
from benchmarks.contestants.command import accept_random_cifar10, words
from benchmarks.contestants.networks import PlainVAE, images_of, pixels
from benchmarks.data import lay_out, write_random_cifar10, write_random_mnist
from benchmarks.environments import FOLDER, environment
from benchmarks.evaluation import bare_nll, with_weights_of
from benchmarks.task import Task
from benchmarks.turns import Lap, Program, Race, Span, plain, take_turns
from torchvision import datasets

from attelbo.data.sources import CIFAR10, MNIST
from attelbo.experiments.configuration import check, compose
from attelbo.latent import estimate_log_likelihood
from attelbo.models import build_data, build_model, count_parameters

TASK = Task(
    name="tiny",
    network="mlp",
    hidden=(12, 8),
    latent_dim=3,
    activation="tanh",
    threads=1,
    laps=3,
    train_size=500,
    validation_size=100,
    data_dir="data",
)
CONV = replace(TASK, network="conv", hidden=(4, 6, 8), activation="relu")
TASKS = [
    TASK,
    replace(TASK, hidden=(16,), latent_dim=2, activation="relu", batch_size=64, lr=0.01),
    CONV,
    replace(CONV, data="cifar10", hidden=(4, 6), activation="tanh"),
]
IDS = ["mlp-tanh", "mlp-relu", "conv-mnist", "conv-cifar10"]


def lap(rows: int, train: float, whole: float, gpu_memory: int | None = None) -> Lap:
    return Lap(rows, Span(train, train / 2), Span(whole, whole / 4), validation=-100.0, gpu_memory=gpu_memory)


def ours_for(task, folder=Path("out")):
    config = compose("train", words(task, folder)[1:]).config
    return build_model(config, build_data(config))


def in_the_order_of_plain(model, task):
    """attelbo's parameters for the plain network's: its posterior and its decoder's first layer have the channels of
    a map last."""
    parameters = [p.detach().clone() for part in (model.encoder, model.posterior) for p in part.parameters()]
    first, bias, *others = (p.detach().clone() for p in model.decoder.parameters())
    if task.network == "conv":
        _, height, width = model.encoder.out_shape
        head = parameters[-2].unflatten(1, (height, width, -1))
        parameters[-2] = head.permute(0, 3, 1, 2).flatten(1)
        channels = task.hidden[-1]
        size = round((len(bias) / channels) ** 0.5)
        first = first.view(size, size, channels, -1).permute(2, 0, 1, 3).flatten(0, 2)
        bias = bias.view(size, size, channels).permute(2, 0, 1).flatten()
    return [*parameters, first, bias, *others]


# -- like with like ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_the_command_does_the_task(task, tmp_path):
    composition = compose("train", words(replace(task, laps=7, threads=2, fused=False), tmp_path)[1:])
    check(composition)
    config = composition.config
    assert config["trainer"]["max_epochs"] == 7
    assert config["trainer"]["threads"] == 2
    assert config["data"]["batch_size"] == task.batch_size
    assert {"progress", "best_checkpoint", "last_checkpoint", "nan_guard"} <= config["callbacks"].keys()
    assert "csv" in config["logger"]
    assert (config["optimizer"]["fused"], config["optimizer"]["lr"]) == (False, task.lr)
    assert config["data"]["binarize"] == ("dynamic" if task.data == "mnist" else "none")
    assert config["data"]["flip"] is False


def test_the_command_compiles_where_the_task_says_so(tmp_path):
    composition = compose("train", words(replace(CONV, compile=True), tmp_path)[1:])
    check(composition)
    assert composition.config["trainer"]["compile"] is True


def test_the_command_trains_in_bf16_where_the_task_says_so(tmp_path):
    for bf16, precision in ((False, "32-true"), (True, "bf16-mixed")):
        composition = compose("train", words(replace(CONV, bf16=bf16), tmp_path)[1:])
        assert composition.config["trainer"]["precision"] == precision


def test_bf16_takes_part_where_a_cpu_has_it(monkeypatch):
    for has_it in (False, True):
        monkeypatch.setattr("attelbo.training.trainer.bf16_is_fast", lambda accelerator, has_it=has_it: has_it)
        assert any(training.BF16 in heat.names for heat in training.heats("cpu", False, 4, Path())) == has_it


@pytest.mark.parametrize("task", TASKS, ids=IDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_plain_and_ours_have_the_same_loss_and_gradients(task, channels_last):
    ours, other = ours_for(task), PlainVAE(task)
    assert count_parameters(ours) == count_parameters(other)
    with torch.no_grad():
        for own, theirs in zip(other.parameters(), in_the_order_of_plain(ours, task), strict=True):
            own.copy_(theirs)
    x = torch.rand(20, *task.image)
    x = x.bernoulli() if task.data == "mnist" else x
    torch.manual_seed(1)
    loss = ours.objective(ours.evidence(x))
    loss.backward()
    for parameter in ours.parameters():  # their gradients, in the place of their values
        parameter.data = parameter.grad
    if channels_last:
        x, other = (both.to(memory_format=torch.channels_last) for both in (x, other))
    torch.manual_seed(1)
    plain_loss = other(x)
    plain_loss.backward()
    torch.testing.assert_close(plain_loss, loss)
    for own, theirs in zip(other.parameters(), in_the_order_of_plain(ours, task), strict=True):
        torch.testing.assert_close(own.grad, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_initial_weights_have_our_spread(network, activation):
    hidden = (300, 300) if network == "mlp" else (32, 64, 128)
    task = replace(TASK, network=network, hidden=hidden, activation=activation)
    compared = 0
    for own, theirs in zip(PlainVAE(task).parameters(), in_the_order_of_plain(ours_for(task), task), strict=True):
        head = own.shape[0] == 2 * task.latent_dim  # of the posterior, torch's default in attelbo
        if own.ndim > 1 and own.numel() > 2_000 and not head:
            compared += 1
            assert own.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert compared == (4 if network == "mlp" else 5)


def test_the_bare_loop_learns(tmp_path):
    write_random_mnist(tmp_path, 300, 20)
    task = replace(CONV, data_dir=str(tmp_path), train_size=200, channels_last=True, batch_size=50)
    images, validation = images_of(task)
    assert (images.shape, images.dtype, len(validation)) == ((200, 1, 28, 28), torch.uint8, 100)
    model = PlainVAE(task)
    bits = pixels(validation, task)
    before = model.elbo(bits, 40)
    for _ in range(10):
        train_epoch(model, torch.optim.Adam(model.parameters(), 1e-2, fused=True), images, task)
    assert model.elbo(bits, 40) > before + 5


def test_pixels_are_drawn_or_scaled():
    grey = torch.full((1000, 1, 8, 8), 51, dtype=torch.uint8)
    drawn = pixels(grey, TASK)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.2, abs=5 * (0.16 / drawn.numel()) ** 0.5)
    torch.testing.assert_close(pixels(grey, replace(TASK, data="cifar10")), torch.full(grey.shape, 0.2))


def test_both_likelihoods_are_the_same_arithmetic():
    other = PlainVAE(TASK)
    ours = with_weights_of(other, ours_for(TASK)).eval()
    x = torch.rand(6, 1, 28, 28).bernoulli()
    torch.manual_seed(3)
    expected = estimate_log_likelihood(ours.weight_sampler(x), n_samples=50, chunk=20).log_likelihood
    torch.manual_seed(3)
    torch.testing.assert_close(-bare_nll(other, x, n_samples=50, chunk=20), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.slow
def test_pythae_trains_the_same_network():
    python = FOLDER / "pythae" / "bin" / "python"
    if not python.exists():
        pytest.skip("pythae is not installed: make bench installs it")
    program = """
import sys, torch
from benchmarks.contestants.pythae_trainer import build
from benchmarks.task import Task
for task in map(Task.from_json, sys.argv[1:]):
    model, plain = build(task)
    assert {id(p) for p in model.parameters()} == {id(p) for p in plain.parameters()}
    x = torch.rand(20, *task.image)
    x = x.bernoulli() if plain.binary else x
    zero = torch.zeros(1, *task.image)
    constant = 0.0 if plain.binary else plain.distortion(zero, zero)  # which the squared error lacks
    torch.manual_seed(1)
    loss = model({"data": x}).loss
    loss.backward()
    gradients = [p.grad for p in plain.parameters()]
    plain.zero_grad()
    torch.manual_seed(1)
    expected = plain(x)
    expected.backward()
    torch.testing.assert_close(loss + constant, expected, rtol=1e-5, atol=0)
    for p, gradient in zip(plain.parameters(), gradients):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-3, atol=1e-3 * p.grad.abs().max().item())
"""
    tasks = [task.to_json() for task in TASKS]
    done = subprocess.run([python, "-c", program, *tasks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- data --------------------------------------------------------------------------------------------------


def test_random_mnist_is_read_by_all(tmp_path):
    assert not data.has("mnist", tmp_path)
    write_random_mnist(tmp_path, 30, 20)
    assert data.has("mnist", tmp_path)
    splits = MNIST().load(tmp_path)
    assert (len(splits.train.x), len(splits.test.x)) == (30, 20)
    assert 100 < splits.train.x.float().mean() < 155
    assert torch.equal(splits.train.x, torch.from_numpy(data.training_images("mnist", tmp_path).copy()))
    assert len(datasets.MNIST(tmp_path, train=True)) == 30


def test_random_cifar10_is_read_by_all(tmp_path, monkeypatch):
    write_random_cifar10(tmp_path, 50, 20)
    assert data.has("cifar10", tmp_path)
    for name in ("train_list", "test_list"):  # put back after the test
        monkeypatch.setattr(datasets.CIFAR10, name, getattr(datasets.CIFAR10, name))
    accept_random_cifar10(replace(TASK, data="cifar10", data_dir=str(tmp_path)))
    splits = CIFAR10().load(tmp_path)
    assert (splits.train.x.shape, len(splits.test.x)) == ((50, 3, 32, 32), 20)
    assert torch.equal(splits.train.x, torch.from_numpy(data.training_images("cifar10", tmp_path).copy()))


def test_real_files_are_laid_out_extracted(tmp_path):
    write_random_mnist(tmp_path / "there", 30, 20)
    write_random_cifar10(tmp_path / "there", 50, 20)
    for file in (tmp_path / "there" / "MNIST" / "raw").glob("*images*"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert lay_out("mnist", tmp_path / "there", tmp_path / "here")
    assert lay_out("cifar10", tmp_path / "there", tmp_path / "here")
    assert len(data.training_images("mnist", tmp_path / "here")) == 30
    assert len(data.training_images("cifar10", tmp_path / "here")) == 50


def test_random_images_stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SIZES", {"mnist": (30, 20), "cifar10": (50, 20)})
    assert not lay_out("mnist", tmp_path / "nothing", tmp_path / "here")
    assert len(data.training_images("mnist", tmp_path / "here")) == 30


def test_every_path_gives_each_row_once(tmp_path):
    write_random_mnist(tmp_path, 260, 20)
    images = torch.from_numpy(data.training_images("mnist", tmp_path).copy())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), 100)
    for path in (data_path._Ours(str(tmp_path), 250), data_path._Bare(images), data_path._Drawn(loader)):
        x = torch.cat(list(path))
        assert x.shape == (250 if isinstance(path, data_path._Ours) else 260, 1, 28, 28)
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert x.mean().item() == pytest.approx(0.5, abs=0.02)


# -- turns -------------------------------------------------------------------------------------------------

RUNNER = """
import sys
from benchmarks.turns import Lap, Span, arguments
track, task = arguments(sys.argv)
track.ready({"task": task})
for i in range(3):
    track.wait()
    if task == "stumble" and i == 1:
        sys.exit("a stone in the way")
    open("order", "a").write(task)
    track.report(Lap(10 * i, Span(1.0, 1.0), Span(2.0, 2.0), -1.0, gpu_memory=7))
track.wait()
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A contestant that needs nothing but the standard library."""
    (tmp_path / "runner.py").write_text(RUNNER)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_turns(runner):
    race = take_turns({"a": Program("runner", "A"), "b": Program("runner", "B", sys.executable)}, laps=3)
    assert (runner / "order").read_text() == "ABABAB"
    assert race.about == {"a": {"task": "A"}, "b": {"task": "B"}}
    assert [own.rows for own in race.laps["b"]] == [0, 10, 20]
    assert race.laps["a"][0] == Lap(0, Span(1.0, 1.0), Span(2.0, 2.0), -1.0, gpu_memory=7)
    assert all(2**22 < peak < 2**28 for peak in race.memory.values())  # a Python without torch


def test_patience_ends_after_the_second_lap(runner):
    told = []
    race = take_turns({"a": Program("runner", "A"), "b": Program("runner", "B")}, laps=3, patience=0, tell=told.append)
    assert told == ["lap 0, a: 0 rows/s", "lap 0, b: 0 rows/s", "lap 1, a: 10 rows/s", "lap 1, b: 10 rows/s"]
    assert (runner / "order").read_text() == "ABAB"
    assert [len(own) for own in race.laps.values()] == [2, 2]


def test_a_failing_contestant_is_quoted(runner):
    with pytest.raises(RuntimeError, match=r"runner ended with 1:\na stone in the way"):
        take_turns({"a": Program("runner", "A"), "b": Program("runner", "stumble")}, laps=3)


def test_plain_output():
    assert plain(b"\x1b[2Kstep 1\r\x1b[36mstep 2\x1b[0m\r\nerror\r\n") == "step 2\nerror"


# -- environments ------------------------------------------------------------------------------------------


def test_an_environment_that_is_there_already():
    found = environment("pydantic", python=sys.executable)
    assert found.missing is None
    assert found.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_an_environment_with_another_torch_is_made_anew(tmp_path, monkeypatch):
    installed = []
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_install", lambda package, folder: installed.append(folder))
    monkeypatch.setattr(environments, "_versions", lambda package, python: {})
    (tmp_path / "pythae/lib/python3/site-packages/torch-1.0.0.dist-info").mkdir(parents=True)
    environment("pythae", tell=lambda line: None)
    assert installed == [tmp_path / "pythae"]
    (tmp_path / f"pythae/lib/python3/site-packages/torch-{torch.__version__}.dist-info").mkdir()
    environment("pythae", tell=lambda line: None)
    assert len(installed) == 1


def test_what_cannot_be_installed_is_told_in_one_line(tmp_path, monkeypatch):
    def fail(*words):
        raise subprocess.CalledProcessError(1, words, stderr="error: nothing at\n https://user@host/simple/x to be had")

    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_install", fail)
    lines = []
    missing = environment("pythae", tell=lines.append).missing
    assert missing == "pythae could not be installed: error: nothing at ... to be had"
    assert lines[-1] == missing


# -- from laps to tables -----------------------------------------------------------------------------------


def race(**laps):
    return Race(laps, {name: {"threads": 1} for name in laps}, dict.fromkeys(laps, 3 * 2**20))


def test_ratios_are_made_within_a_round():
    warm = lap(100, 60.0, 60.0)
    ours = [warm, lap(100, 1.0, 2.0), lap(100, 10.0, 20.0), lap(100, 2.0, 2.0)]
    bare = [warm, lap(100, 0.5, 1.0), lap(100, 10.0, 10.0), lap(100, 3.0, 1.0)]
    peer = [warm, lap(50, 1.0, 1.0), lap(50, 20.0, 20.0), lap(50, 4.0, 1.0)]
    result = report.compare(race(ours=ours, bare=bare, peer=peer), "ours", "bare")
    own = result["ours"]
    assert own["train"]["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}
    assert own["whole"]["ratio"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert own["train"]["cpu_ratio"] == own["train"]["ratio"]
    assert own["train"]["rows_per_second"] == {"median": 50.0, "min": 10.0, "max": 100.0}
    assert own["ours_is_faster"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert own["first_lap_extra_seconds"] == 58.0
    assert own["memory"] == 3 * 2**20
    assert result["peer"]["ours_is_faster"] == {"median": 4.0, "min": 2.0, "max": 4.0}


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
@pytest.mark.parametrize("quick", [False, True])
def test_heats(accelerator, quick):
    chosen = training.heats(accelerator, quick, 4, Path())
    tasks = [heat.task for heat in chosen]
    assert {task.network for task in tasks} == {"mlp", "conv"}
    assert len({(task.name, task.batch_size, task.threads) for task in tasks}) == len(tasks)
    for heat in chosen:
        task = heat.task
        assert {training.OURS, training.BARE} <= set(heat.names) <= set(training.ENTRIES)
        assert task.laps == 5
        assert task.device == ("cuda" if accelerator == "gpu" else "cpu")
        assert task.train_size + task.validation_size <= data.SIZES[task.data][0]
        assert Task.from_json(task.to_json()) == task
        if "Lightning template" in heat.names:  # torchvision has no random CIFAR-10
            assert task.data == "mnist"
    assert any("pythae" in heat.names for heat in chosen)
    if not quick:
        assert any(task.train_size == 59_600 and task.hidden == (200, 200) for task in tasks)
        assert any(task.data == "cifar10" for task in tasks)


def canned():
    """The JSON of a benchmark, as it is read from a file."""
    spread = {"median": 2.0, "min": 1.5, "max": 2.5}
    laps = {
        "attelbo": [lap(100, 2.0, 2.0), lap(100, 1.0, 2.0)],
        "bare loop": [lap(100, 2.0, 2.0), lap(100, 0.9, 1.0)],
        "Lightning template": [lap(20, 2.0, 2.0, 2**21), lap(20, 1.0, 2.0, 2**21)],
    }
    heat = {
        "task": json.loads(replace(TASK, threads=None).to_json()),
        "threads": 2,
        "absent": {"pythae": "pythae could not be installed: no network"},
        "contestants": report.compare(race(**laps), "attelbo", "bare loop"),
    }
    paths = {"torchvision, DataLoader with 0 workers": 19_000.0, "attelbo": 500_000.0}
    seconds = {"seconds": spread, "processor_seconds": spread, "beyond_the_imports": spread}
    result = {
        "date": "2026-11-22 20:00",
        "seconds": 600.4,
        "data": "MNIST",
        "load_average": {"before": [0.1, 0, 0], "after": [1.2, 0, 0]},
        "hardware": {"system": "Linux", "cpu": "A processor", "cores": 2, "gpus": ["A GPU"]},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "lightning": "2.6.6", "hydra-core": "1.3.8"},
        "git": {"sha": "0123456789", "changed": True},
        "pythae": {"versions": {"pythae": "0.1.2", "torch": "2.14.0"}, "missing": None},
        "sections": {
            "training": [heat],
            "data": {
                name: {"rows_per_second": {**spread, "median": rate}, "ours_is_faster": spread}
                for name, rate in paths.items()
            },
            "startup": {
                "programs": {
                    startup.IMPORTS: seconds,
                    "attelbo --help": {**seconds, "seconds": {**spread, "median": 0.1}},
                },
                "multirun": {"job": spread, "beyond_training": spread, "evaluation": spread},
            },
            "evaluation": {
                "n_images": 100,
                "n_samples": 5000,
                "images_per_second": {"attelbo": spread, "bare loop": spread},
                "ratio": spread,
                "nll": {"attelbo": 98.1234, "bare loop": 98.1235},
            },
            "replicas": {
                "seeds": 4,
                "epochs": 2,
                "training_seconds": {"one after the other": spread, "replicas": {**spread, "median": 1.0}},
                "whole_seconds": {"one after the other": spread, "replicas": spread},
                "processor_seconds": {"one after the other": spread, "replicas": spread},
                "training_faster": spread,
                "whole_faster": spread,
                "largest_difference": 0.00012,
            },
        },
    }
    return json.loads(json.dumps(result))


def test_the_full_tables():
    text = tables.markdown(canned())
    for line in (
        "| tiny | 100 | default (2) | 111 | 0.90 (0.90-0.90) | 0.18 (0.18-0.18) | 0.50 (0.50-0.50) |",
        "pythae: pythae could not be installed: no network.",
        "| tiny | 100 | default (2) | attelbo | 1 | 100 | 0.90 (0.90-0.90) | 0.90 (0.90-0.90) | 1.00 (1.00-1.00) | 1.0 "
        "| 3 |  | -100.0 |",
        "| torchvision, DataLoader with 0 workers | 19,000 | 2.0 (1.5-2.5) |",
        "| attelbo --help | 0.10 (1.50-2.50) | 2.00 (1.50-2.50) | 2.00 (1.50-2.50) |",
        "| attelbo | 2.0 | 2.00 (1.50-2.50) | 98.123 |",
        "| replicas | 1.00 (1.50-2.50) | 2.00 (1.50-2.50) | 2.00 (1.50-2.50) |",
        "| faster by | 2.00 (1.50-2.50) | 2.00 (1.50-2.50) |  |",
        "The test ELBOs of a seed differ by 0.00012 nats at most.",
        "2026-11-22 20:00 UTC, A processor, A GPU, 2 cores, load average 0.1 before and 1.2 after; python 3.11.7, "
        "torch 2.15.0, lightning 2.6.6, hydra-core 1.3.8; attelbo 0123456+; pythae 0.1.2 with torch 2.14.0.",
    ):
        assert line in text.splitlines()
    assert "| 2 | (after 20 rows an epoch) |" in text


def test_the_short_tables():
    lines = tables.summary(canned()).splitlines()
    for line in (
        "| peak memory of the first of these, MiB | 3 | 3 (bare loop), 3 (Lightning template) |  |",
        "| NLL with 5,000 samples, images/s | 2.0 | 2.0 (bare loop) | 2.00 (1.50-2.50) |",
        "| training of 4 seeds, s | 1.0 (replicas) | 2.0 (in turn) | 2.00 (1.50-2.50) |",
        "| attelbo --help, s | 0.10 | 2.00 (`import torch, lightning.pytorch`) | 0.05 |",
    ):
        assert line in lines
    assert len(lines) < 25


def test_a_section_alone_has_its_table():
    for name, section in canned()["sections"].items():
        result = {**canned(), "sections": {name: section}, "git": None}
        result["versions"]["attelbo"] = "0.1.0"
        assert tables.markdown(result).count("\n| --- |") == (2 if name == "training" else 1)
        assert "attelbo 0.1.0" in tables.summary(result)


def test_of_two_measurements_the_first_counts():
    newer, older = canned(), canned()
    (heat, *_) = newer["sections"]["training"]
    newer["sections"] = {"training": [heat], "evaluation": newer["sections"]["evaluation"]}
    newer["date"] = "2030-01-01 00:00"
    both = readme.summaries([newer, older])
    assert both.startswith(tables.summary(newer))
    assert both.count("NLL with") == tables.summary(newer).count("NLL with") > 0
    assert older["date"] in both
    assert readme.summaries([older]) == tables.summary(older)


def test_numbers_go_between_the_markers():
    text = "a\n<!-- numbers: begin -->\nold\n<!-- numbers: end -->\nb\n"
    new = "a\n<!-- numbers: begin -->\nn\\1ew\n<!-- numbers: end -->\nb\n"
    assert readme.replace(text, "numbers", "n\\1ew\n") == new
    with pytest.raises(SystemExit, match="'speed' stand there 0 times"):
        readme.replace(text, "speed", "")


def test_the_page_of_papers_has_each_table_under_its_command(tmp_path):
    def write(paper: str, budget: str) -> Path:
        table = tmp_path / "papers" / paper / f"{budget}-0a1b2c3d" / "table.md"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"# Title of {paper}\n\nIts source\n\n| cell |\n| --- |\n\n- a note on {budget}\n")
        return table

    text = papers.page([write("vit", "quick"), write("iwae", "quick"), write("sort_reverse", "full")])
    assert text.startswith(papers.HEAD + "\n## Title of sort_reverse\n")
    assert re.findall("    attelbo reproduce (.*)", text) == [
        "sort_reverse --budget full",
        "iwae --budget quick",
        "vit --budget quick",
    ]
    assert "    attelbo reproduce vit --budget quick\n\nIts source\n\n| cell |" in text
    assert text.endswith("- a note on quick\n")

    anew = write("vit", "quick")
    anew.write_text(anew.read_text("utf-8").replace("Its source", "Its source, read again"), "utf-8")
    renewed = papers.page([anew], before=text)  # the others' runs are on another machine
    assert renewed == "Its source, read again".join(text.rsplit("Its source", 1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "training,tea"], "no such section: tea; there are training, data, "),
        (["--tasks", "sculpture"], "no such training task; there are MLP 784-200-200-z50 tanh, "),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_words_that_mean_nothing(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit, match="2"):
        parsed()
    assert message in capsys.readouterr().err


def test_words_that_mean_something(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "startup,training", "--tasks", "conv", "--quick"])
    options = parsed()
    assert (options.only, options.tasks, options.rounds) == (("startup", "training"), "conv", training.QUICK_ROUNDS)


# -- whole programs ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tiny_race_from_processes_to_table(tmp_path, monkeypatch):
    write_random_mnist(tmp_path / "data", 700, 120)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    task = replace(CONV, data_dir=str(tmp_path / "data"))
    lines = []
    absent = environments.Environment("", {}, missing="not here")
    heat = training.Heat(task, ("attelbo", "bare loop", "pythae"), patience=60)
    (found,) = training.run([heat], absent, lines.append)
    assert found["threads"] == 1
    assert found["absent"] == {"pythae": "not here"}
    for own in found["contestants"].values():
        assert [one["rows"] for one in own["laps"]] == [500, 500, 500]
        assert all(0 < one["train"]["wall"] < one["whole"]["wall"] for one in own["laps"])
        assert all(0 < one["train"]["cpu"] < one["whole"]["cpu"] for one in own["laps"])
        assert all(-700 < one["validation"] < -300 for one in own["laps"])
        assert own["memory"] > 2**26
    assert len(lines) == 7  # two for each of three laps
    assert lines[-1].startswith("tiny, batch 100, threads 1: attelbo ")
    assert "| tiny | 100 | 1 | " in tables.ratios([found])
    saved = report.save(found, tmp_path / "results")
    assert json.loads(saved.read_text(encoding="utf-8"))["contestants"] == found["contestants"]
    assert str(tmp_path) not in saved.read_text(encoding="utf-8")
    assert not list((tmp_path / "tmp").iterdir())


def test_a_failing_program_is_quoted():
    with pytest.raises(RuntimeError, match=r"ended with 2:(.|\n)*no such command"):
        startup.whole([sys.executable, "-m", "attelbo", "fly"])


def test_results_are_found_by_seed(tmp_path):
    for seed in (2, 0, 1):
        run = tmp_path / "sweep" / str(seed)
        run.mkdir(parents=True)
        (run / "provenance.json").write_text(json.dumps({"seed": seed}))
        (run / "result.json").write_text(json.dumps({"steps": 10 * seed}))
    assert list(replicas.results_by_seed(tmp_path).items()) == [
        (0, {"steps": 0}),
        (1, {"steps": 10}),
        (2, {"steps": 20}),
    ]


@pytest.mark.slow
def test_the_whole_benchmark_quickly(tmp_path):
    """All sections with random data; pythae takes part where it is installed."""
    python = FOLDER / "pythae" / "bin" / "python"
    more = ["--pythae", str(python) if python.exists() else sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--data-dir", str(tmp_path), *more],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for title in ("Training", "The data path alone", "Start-up", "Evaluation", "Several seeds at once"):
        assert f"### {title}" in done.stdout
    assert "written: " in done.stderr
