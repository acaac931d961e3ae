"""A run from its configuration to its result, and what becomes of it when something goes wrong."""

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.strategies.launchers import subprocess_script
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import attelbo
from attelbo.cli import main
from attelbo.data.sources.digits import Digits
from attelbo.errors import ConfigError, TrainingDiverged, UserError
from attelbo.experiments import resuming, run
from attelbo.experiments.rundir import RunDirectory, config_hash, locked
from attelbo.files import read_metrics
from attelbo.latent.likelihoods import Bernoulli
from attelbo.models import VariationalAutoencoder
from attelbo.models.schedulers import Cosine
from compilers import needs_a_compiler
from forked import Forked, take_rank


@pytest.fixture(scope="module")
def done(shared_runs) -> run.Outcome:
    return shared_runs.train("callbacks=default", "data.binarize=dynamic")


# -- from Python ---------------------------------------------------------------------------------------


def test_a_call_does_what_the_command_does(runs, done):
    words = runs.words("callbacks=default", "data.binarize=dynamic")
    outcome = attelbo.train(*words)
    assert (outcome.state, outcome.exit_code) == ("done", 0)
    assert outcome.run_dir.parent == runs.folder / "small"
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert outcome.metrics == result["metrics"] == done.metrics
    assert yaml.safe_load((outcome.run_dir / ".hydra" / "overrides.yaml").read_text()) == words
    assert RunDirectory(outcome.run_dir).choices()["data"] == "digits"


def test_what_is_wrong_with_a_call_is_raised(runs):
    with pytest.raises(ConfigError, match=r"model.latnet_dim \(command line\): unknown key; did you mean"):
        attelbo.train("model.latnet_dim=3")
    with pytest.raises(ConfigError, match=r"trainer\.replicas must be 1: one call is one run"):
        attelbo.train("trainer.replicas=2")
    with pytest.raises(ConfigError, match="is a sweep"):
        attelbo.train("seed=1,2")
    assert not runs.folder.exists()
    with pytest.raises(TrainingDiverged, match="training diverged"):
        attelbo.train(*runs.words("callbacks=nan_guard", "optimizer.lr=1e30"))


# -- a run that goes well ------------------------------------------------------------------------------


def test_the_run_directory_is_complete(done, shared_runs):
    assert (done.state, done.exit_code) == ("done", 0)
    assert done.run_dir.parent == shared_runs.folder / "small"
    for name in (
        *("config.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/choices.yaml"),
        *("provenance.json", "status.json", "result.json", "metrics.csv", "report.html"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("media/samples.png", "media/reconstructions.png", "media/latent_map.png", "media/traversals.png"),
    ):
        assert (done.run_dir / name).stat().st_size > 0, name
    assert not [path for path in done.run_dir.rglob("*") if path.name.endswith(".tmp")]


def test_the_configuration_is_written_down(done, shared_runs):
    written = yaml.safe_load((done.run_dir / "config.yaml").read_text())
    asked = shared_runs.configure("callbacks=default", "data.binarize=dynamic")
    assert asked["trainer"]["threads"] == "auto"
    assert written == asked | {"trainer": asked["trainer"] | {"threads": 1}}
    overrides = yaml.safe_load((done.run_dir / ".hydra" / "overrides.yaml").read_text())
    assert overrides == ["callbacks=default", "data.binarize=dynamic"]


def test_the_status_tells_how_it_ended(done):
    status = RunDirectory(done.run_dir).status()
    assert status["state"] == "done"
    assert status["attempts"] == 1
    assert status["config_hash"] in done.run_dir.name
    assert status["started"] < status["ended"]
    assert status["train_seconds"] > 0
    assert "error" not in status


def test_the_data_are_recorded(done):
    provenance = json.loads((done.run_dir / "provenance.json").read_text())
    assert provenance["seed"] == 0
    checksums = provenance["data"]["checksums"]
    assert set(checksums) == {"train", "validation", "test"}
    assert len(set(checksums.values())) == 3


def test_the_result_is_that_of_the_best_checkpoint(done):
    result = json.loads((done.run_dir / "result.json").read_text())
    assert result["checkpoint"] == "best"
    assert (result["epochs"], result["steps"]) == (2, 20)
    assert (result["nll_samples"], result["nll_images"]) == (2, 5)
    model = VariationalAutoencoder.from_run(done.run_dir)
    assert result["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert result["seconds"]["train"] > 0
    assert result["samples_per_second"] == pytest.approx(2 * 100 / result["seconds"]["train"])
    metrics = result["metrics"]
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/reconstruction"] - metrics["test/kl"], rel=1e-5)
    assert metrics["test/bits_per_dim"] == pytest.approx(-metrics["test/elbo"] / 64 / math.log(2), rel=1e-5)
    logged = read_metrics(done.run_dir / "metrics.csv")
    for name in ("test/elbo", "test/nll", "test/active_units"):
        assert logged[name][-1] == (20, pytest.approx(metrics[name]))


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_checkpoint_that_was_asked_for_is_evaluated(runs, which):
    # The learning rate ruins the model in the second epoch, so the two differ.
    words = ("optimizer=sgd", "optimizer.momentum=0.0", "optimizer.nesterov=false", "optimizer.lr=0.5")
    outcome = runs.train(*words, "trainer.max_epochs=3", f"evaluation.checkpoint={which}")
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert result["checkpoint"] == which
    saved = runs.checkpoint(outcome, which)
    model, data = run.assemble(runs.configure(*words))
    model.load_state_dict(saved["state_dict"])
    from attelbo.experiments.evaluation import Conditions, evaluate_bound
    from attelbo.experiments.settings import Evaluation

    expected = evaluate_bound(model.eval(), data, Conditions("test", Evaluation(n_samples=1)))
    assert result["metrics"]["test/elbo"] == pytest.approx(expected["test/elbo"], rel=1e-6)
    assert not torch.equal(
        runs.checkpoint(outcome, "best")["state_dict"]["posterior.head.weight"],
        runs.checkpoint(outcome, "last")["state_dict"]["posterior.head.weight"],
    )


def test_without_one_callback_and_one_logger(runs):
    outcome = runs.train(
        "callbacks=default", "callbacks.pictures=null", "logger=many", "logger.csv=null", "logger.wandb=null"
    )
    assert (outcome.run_dir / "checkpoints" / "best.ckpt").is_file()
    assert not (outcome.run_dir / "media" / "samples.png").exists()
    assert not (outcome.run_dir / "wandb").exists()
    assert list((outcome.run_dir / "tensorboard").glob("*"))


def test_without_callbacks_and_loggers(runs):
    outcome = runs.train("callbacks=none", "logger=none")
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert result["checkpoint"] == "last"
    assert math.isfinite(result["metrics"]["test/nll"])
    assert not (outcome.run_dir / "metrics.csv").exists()
    assert not (outcome.run_dir / "checkpoints").exists()


def test_the_last_weights_need_no_checkpoint_of_them(runs):
    outcome = runs.train("callbacks.last_checkpoint=null", "evaluation.checkpoint=last")
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert (outcome.state, result["checkpoint"]) == ("done", "last")
    expected = runs.train("evaluation.checkpoint=last")
    assert result["metrics"] == json.loads((expected.run_dir / "result.json").read_text())["metrics"]


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"),
        ("trainer.check_val_every_n_epoch=5", "trainer.max_epochs=2"),
        ("trainer.max_steps=13",),
    ],
    ids=" ".join,
)
def test_the_last_checkpoint_is_that_of_the_last_step(runs, words):
    """Whether or not a validation follows it."""
    outcome = runs.train(*words, "evaluation.checkpoint=last")
    expected = runs.fit(*words).lightning_module
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert result["steps"] == expected.stepper.step
    saved = runs.checkpoint(outcome)
    assert saved["global_step"] == expected.stepper.step
    assert all(torch.equal(value, saved["state_dict"][name]) for name, value in expected.state_dict().items())


def test_where_no_validation_was_there_is_no_best_checkpoint(runs):
    outcome = runs.train("trainer.check_val_every_n_epoch=5", "evaluation.checkpoint=best")
    assert json.loads((outcome.run_dir / "result.json").read_text())["checkpoint"] == "last"


def test_equal_runs_and_other_seeds(runs):
    weights = {}
    for name, words in {"a": (), "b": (), "c": ("seed=1",)}.items():
        state = runs.checkpoint(runs.train(*words))["state_dict"]
        weights[name] = torch.cat([value.flatten() for value in state.values()])
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])


# -- a run that goes wrong -----------------------------------------------------------------------------


def test_a_defect_is_recorded_and_leads_to_1(runs, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(run, "evaluate_model", fail)
    assert main(["train", *runs.words()]) == 1
    (folder,) = (runs.folder / "small").iterdir()
    status = RunDirectory(folder).status()
    assert status["state"] == "failed"
    assert status["error"].startswith("Traceback (most recent call last):")
    assert status["error"].strip().endswith("ZeroDivisionError: a defect")
    assert status["train_seconds"] > 0
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err
    assert not (folder / "result.json").exists()

    monkeypatch.undo()
    assert main(["train", *runs.words("ckpt=auto")]) == 0  # mended: it goes on where it was
    status = RunDirectory(folder).status()
    assert (status["state"], status["attempts"]) == ("done", 2)
    assert "error" not in status


class PoisonedBernoulli(Bernoulli):
    """NaN at the third minibatch."""

    calls = 0

    def log_prob(self, eta, x):
        type(self).calls += torch.is_grad_enabled()  # not what a class of one's own is tried with
        value = super().log_prob(eta, x)
        return value * math.nan if self.calls == 3 else value


def test_a_nan_stops_the_run_and_names_its_place(runs, monkeypatch, capsys):
    monkeypatch.setattr(PoisonedBernoulli, "calls", 0)
    monkeypatch.setattr("attelbo.latent.likelihoods.Bernoulli", PoisonedBernoulli)
    assert main(["train", *runs.words("callbacks=default")]) == 1
    (folder,) = (runs.folder / "small").iterdir()
    status = RunDirectory(folder).status()
    assert status["state"] == "failed"
    message = "training diverged: reconstruction is nan at optimizer step 3 (epoch 1), in the 10 training rows "
    assert message in status["error"]
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (folder / "checkpoints" / "last.ckpt").exists()


def test_a_learning_rate_beyond_reason(runs, capsys):
    assert (
        main(
            ["train", *runs.words("callbacks=default", "data.binarize=threshold", "optimizer=sgd", "optimizer.lr=1e30")]
        )
        == 1
    )
    (folder,) = (runs.folder / "small").iterdir()
    assert RunDirectory(folder).status()["state"] == "failed"
    line = next(line for line in capsys.readouterr().err.splitlines() if "diverged" in line)
    assert line.startswith("error: training diverged: ")
    assert "at optimizer step " in line
    assert line.endswith(f"[{folder}]")


def test_a_result_that_is_nan_is_none_where_nothing_guards_the_training_either(runs, capsys):
    assert (
        main(["train", *runs.words("callbacks=none", "evaluation.quality=true", "optimizer=sgd", "optimizer.lr=1e30")])
        == 1
    )
    (folder,) = (runs.folder / "small").iterdir()
    assert RunDirectory(folder).status()["state"] == "failed"
    assert not (folder / "result.json").exists()
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: training diverged: test/loss is nan at optimizer step 20 (epoch 2). ")
    assert "\n" not in err


def test_an_output_folder_that_cannot_be_written(runs, capsys):
    runs.folder.write_text("precious")  # a file where the folder should be
    assert main(["train", *runs.words()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: paths.output_dir: cannot make ")
    assert err.count("\n") == 1
    assert runs.folder.read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.latent_dim=0",), "model.latent_dim must be at least 1, got 0"),
        (("data.validation_size=1442",), "data.validation_size must be below 1,442"),
        (("data=sprites", "data.source.size=9"), "data.source.size must be a multiple of 8"),
        (("seed=-1",), "seed must be between 0 and 4,294,967,295, got -1"),
        (("seed=99999999999",), "seed must be between 0 and 4,294,967,295, got 99999999999"),
        (("trainer.max_steps=0",), "trainer.max_steps must be at least 1, got 0; -1 is no limit"),
        (("trainer.max_epochs=0", "trainer.max_steps=4"), "trainer.max_epochs must be at least 1, got 0; -1 is no"),
        (
            ("data.drop_last=true", "data.batch_size=100", "data.train_size=64"),
            "data.drop_last=true leaves nothing to train on: data.batch_size=100, and an epoch has 64 rows; ",
        ),
        (("data.batch_size=0",), "data.batch_size must be at least 1, got 0"),
        (
            ("model.encoder.batch_norm=true", "data.train_size=21"),
            "data.batch_size=10: 21 training rows leave a minibatch of 1, and a single row has no variance for",
        ),
        (
            ("model.decoder.batch_norm=true", "trainer.micro_batches=4"),
            "data.batch_size=10: 100 training rows leave a minibatch of 10 in 4 micro_batches, and a single row",
        ),
        (("data.minibatches_per_block=0",), "data.minibatches_per_block must be at least 1 (0 is for a Trainer of"),
        pytest.param(
            ("data=reference_sentences", "model=text_vae", "trainer.compile=true"),
            "trainer.compile=true takes minibatches of one shape, and on a CPU those of these data are cropped to",
            marks=needs_a_compiler,
        ),
        (("trainer.cuda_graphs=true",), "trainer.cuda_graphs=true takes one GPU and 32-true or bf16 precision"),
        (("model.encoder.hidden=[0]",), "model.encoder: hidden"),
        (("evaluation.n_samples=0",), "evaluation.n_samples must be at least 1, got 0"),
        (("evaluation.n_images=0",), "evaluation.n_images must be at least 1, got 0"),
        (("optimizer.lr=-1.0",), "optimizer: Invalid learning rate: -1.0"),
        (("optimizer=sgd", "optimizer.momentum=0.0"), "optimizer: Nesterov momentum requires a momentum"),
        (("scheduler=cosine", "scheduler.warmup=-0.5"), "scheduler: warmup must be a fraction"),
        (("callbacks.best_checkpoint.every_n_epochs=0",), "callbacks.best_checkpoint: every_n_epochs must be at least"),
        (
            ("callbacks.best_checkpoint.filename=last",),
            "callbacks.best_checkpoint and callbacks.last_checkpoint are both Checkpoint[last]: filename must differ",
        ),
        (
            ("callbacks=early_stopping", "+callbacks.other={_target_:attelbo.training.callbacks.EarlyStopping}"),
            "callbacks.early_stopping and callbacks.other are both EarlyStopping: one of them must go",
        ),
        (
            ("model=vae_gan", "data.binarize=none", "callbacks=early_stopping"),
            "callbacks: no metric tells when VariationalAutoencoder",
        ),
        (("model/likelihood=bernoulli", "data.binarize=none"), "model/likelihood: Bernoulli is not a likelihood of"),
    ],
)
def test_wrong_settings_leave_nothing_behind(runs, words, message):
    with pytest.raises(ConfigError) as caught:
        runs.train(*words)
    assert str(caught.value).startswith(message)
    assert not runs.folder.exists()


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ((), "at step 20 of 20, after 2 epochs; a larger trainer.max_epochs, or trainer.max_steps, goes on"),
        (("data.batch_size=5",), "at step 20 of 40, after 2 epochs; a larger trainer.max_epochs, or"),
        (("trainer.max_epochs=3", "trainer.max_steps=20"), "at step 20 of 20, after 2 epochs; a larger"),
    ],
)
def test_a_checkpoint_from_the_end_is_nothing_to_go_on_from(runs, done, words, end):
    checkpoint = done.run_dir / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError) as caught:
        runs.train(*words, f"ckpt={checkpoint}")
    assert str(caught.value).startswith(f"ckpt: {checkpoint} is where this training ends, {end}")
    assert not runs.folder.exists()


def test_schedules_end_with_the_training_that_went_on_with_larger_minibatches(runs, done):
    """20 steps in two epochs, then 5 in each of four: fewer in all than six epochs have in either size."""
    words = ("data.batch_size=20", "data.minibatches_per_block=2", "trainer.max_epochs=6", "scheduler=cosine")
    outcome = runs.train(*words, f"ckpt={done.run_dir / 'checkpoints' / 'last.ckpt'}")
    assert json.loads((outcome.run_dir / "result.json").read_text())["steps"] == 40
    (group,) = runs.checkpoint(outcome)["optimizer_states"][0]["param_groups"]
    assert group["lr"] == group["initial_lr"] * Cosine(warmup=0.05)(39, 40)


def test_a_training_that_goes_on_has_the_optimizer_that_it_was_given(runs, done):
    words = ("trainer.max_epochs=3", "optimizer=adamw", "optimizer.decay=all", "optimizer.lr=0.0001")
    outcome = runs.train(*words, f"ckpt={done.run_dir / 'checkpoints' / 'last.ckpt'}")
    (group,) = runs.checkpoint(outcome)["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (0.0001, 0.01)


@pytest.mark.parametrize("words", [("optimizer=sgd",), ("model/objective=lagging",)])
def test_a_training_with_optimizers_of_another_kind_is_none_to_go_on_from(runs, done, words):
    checkpoint = done.run_dir / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError) as caught:
        runs.train("trainer.max_epochs=3", *words, f"ckpt={checkpoint}")
    assert str(caught.value).startswith(f"ckpt: {checkpoint} was trained with another kind of optimizer")
    assert not runs.folder.exists()


def test_a_checkpoint_of_a_training_that_was_stopped_early(runs):
    stopping = ("trainer.max_epochs=5", "callbacks=early_stopping", "callbacks.early_stopping.min_delta=1000.0")
    first = runs.train(*stopping, "callbacks.early_stopping.patience=1").run_dir
    ckpt = f"ckpt={first / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(ConfigError, match=r"at step 20 of 50, after 2 epochs; a larger callbacks\.early_stopping\.pa"):
        runs.train(*stopping, "callbacks.early_stopping.patience=1", ckpt)
    assert runs.checkpoint(runs.train(*stopping, "callbacks.early_stopping.patience=3", ckpt))["epoch"] == 3


def test_a_training_that_goes_on_and_gets_worse_has_a_best_epoch_of_its_own(runs, done):
    words = ("trainer.max_epochs=4", "optimizer.lr=0.5")
    outcome = runs.train(*words, f"ckpt={done.run_dir / 'checkpoints' / 'last.ckpt'}")
    assert json.loads((outcome.run_dir / "result.json").read_text())["checkpoint"] == "best"
    values = dict(read_metrics(outcome.run_dir / "metrics.csv")["val/elbo"])
    assert max(values.values()) < max(dict(read_metrics(done.run_dir / "metrics.csv")["val/elbo"]).values())
    assert runs.checkpoint(outcome, "best")["global_step"] == max(values, key=values.__getitem__)


def test_the_learning_rate_begins_with_that_of_the_first_step(runs):
    words = ("scheduler=inverse_square_root", "callbacks=learning_rate", "trainer.max_epochs=1")
    outcome = runs.train(*words, "evaluation.checkpoint=last")
    assert read_metrics(outcome.run_dir / "metrics.csv")["lr"] == [
        (0, pytest.approx(0.001 / 4000)),
        (10, pytest.approx(0.001 * 10 / 4000)),
    ]


def test_an_epoch_without_validation_is_not_waited_for(runs):
    early = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.pictures=null")
    outcome = runs.train(*early, "trainer.max_steps=13")  # the second epoch is not whole
    assert runs.checkpoint(outcome)["callbacks"]["EarlyStopping"]["wait_count"] == 0


def test_weights_alone_are_nothing_to_go_on_from(runs, tmp_path):
    torch.save({"state_dict": run.assemble(runs.configure())[0].state_dict()}, tmp_path / "average.ckpt")
    with pytest.raises(ConfigError, match=r"average\.ckpt holds weights alone; best\.ckpt and last\.ckpt can be gone"):
        runs.train(f"ckpt={tmp_path / 'average.ckpt'}")


@pytest.mark.parametrize(
    "word",
    [
        "trainer.clip_norm=1,-1",
        "trainer.max_epochs=1,0",
        "trainer.replicas=0,1",
        "trainer.strategy=auto,fsdp",
        "seed=0,-1",
    ],
)
def test_no_job_of_a_sweep_runs_if_another_could_not(runs, capsys, word):
    for command in ("check", "train"):
        assert main([command, "-m", *runs.words(word)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {word.partition('=')[0]}")
    assert not runs.folder.exists()


def test_a_trainer_that_cannot_be_built_is_the_users_too(runs):
    with pytest.raises(ConfigError, match=r"trainer\.micro_batches must be at least 1"):
        runs.train("trainer.micro_batches=0")
    assert not runs.folder.exists()


def test_a_directory_in_use_is_left_alone(runs, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", fail)
        with pytest.raises(ZeroDivisionError):
            runs.train()
    (folder,) = (runs.folder / "small").iterdir()
    before = (folder / "status.json").read_bytes()
    with locked(folder), pytest.raises(UserError, match="is being written by another process"):
        runs.train("ckpt=auto")
    assert (folder / "status.json").read_bytes() == before


# -- sweeps --------------------------------------------------------------------------------------------

SWEEP = ("seed=1,2", "model/likelihood=bernoulli,normal", "trainer.max_epochs=1")


def states(sweep: Path) -> dict[str, tuple[str, int]]:
    status = {folder.name: RunDirectory(folder).status() for folder in sweep.iterdir() if folder.is_dir()}
    return {name: (one["state"], one["attempts"]) for name, one in status.items()}


def test_a_sweep_runs_each_job_once(runs, capsys):
    command = ["train", "-m", *runs.words(*SWEEP)]
    assert main(command) == 0
    (sweep,) = (runs.folder / "small").iterdir()
    assert f"sweep: 4 of 4 jobs done in {sweep}\n" in capsys.readouterr().out
    hashes = {
        config_hash(runs.configure(f"seed={seed}", f"model/likelihood={likelihood}", "trainer.max_epochs=1"))
        for seed in (1, 2)
        for likelihood in ("bernoulli", "normal")
    }
    assert states(sweep) == dict.fromkeys(hashes, ("done", 1))
    assert len({(sweep / name / "checkpoints/last.ckpt").read_bytes() for name in hashes}) == 4

    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("*/**/*")} == before
    assert capsys.readouterr().out.count("4 of 4 jobs are done already") == 1


def test_the_jobs_of_a_sweep_read_equal_data_once_and_find_what_each_would_alone(runs, monkeypatch):
    loads = []
    load = Digits.load

    def count(self, root):
        loads.append(root)
        return load(self, root)

    with monkeypatch.context() as patch:
        patch.setattr(Digits, "load", count)
        assert main(["train", "-m", *runs.words("data.validation_size=40,50", "seed=1,2", "trainer.max_epochs=1")]) == 0
    assert len(loads) == 2
    (sweep,) = (runs.folder / "small").iterdir()
    for words in (["data.validation_size=40", "seed=2"], ["data.validation_size=50", "seed=1"]):
        config = runs.configure("trainer.max_epochs=1", *words)
        alone = runs.train("trainer.max_epochs=1", *words).run_dir
        for name, key in (("result.json", "metrics"), ("provenance.json", "data")):
            together = json.loads((sweep / config_hash(config) / name).read_text())
            assert together[key] == json.loads((alone / name).read_text())[key]


def test_a_failed_job_stops_no_other_and_is_tried_again(runs, monkeypatch, capsys):
    evaluate_model = run.evaluate_model

    def fail_once(model, data, conditions, *rest):
        if conditions.seed == 1:
            raise ZeroDivisionError("a defect")
        return evaluate_model(model, data, conditions, *rest)

    command = ["train", "-m", *runs.words("seed=1,2", "trainer.max_epochs=1")]
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", fail_once)
        assert main(command) == 1
    assert "1 of 2 jobs done" in capsys.readouterr().out
    (sweep,) = (runs.folder / "small").iterdir()
    assert sorted(states(sweep).values()) == [("done", 1), ("failed", 1)]
    assert main(command) == 0
    assert sorted(states(sweep).values()) == [("done", 1), ("done", 2)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_sweep_and_the_same_command_goes_on(runs, monkeypatch, number, code):
    def interrupted_evaluation(*args, **kwargs):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was ignored")

    command = ["train", "-m", *runs.words("seed=1,2", "trainer.max_epochs=1")]
    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_model", interrupted_evaluation)
        assert main(command) == code
    (sweep,) = (runs.folder / "small").iterdir()
    assert list(states(sweep).values()) == [("interrupted", 1)]  # the next one did not begin
    assert main(command) == 0
    assert sorted(states(sweep).values()) == [("done", 1), ("done", 2)]


def test_a_job_of_a_sweep_may_start_from_a_checkpoint(runs, done, shared_runs):
    sweep = runs.folder / "sweep"
    checkpoint = done.run_dir / "checkpoints" / "last.ckpt"
    outcome = runs.train("data.binarize=dynamic", "trainer.max_epochs=3", f"ckpt={checkpoint}", sweep=sweep)
    assert json.loads((outcome.run_dir / "result.json").read_text())["steps"] == 30
    assert [step for step, _ in read_metrics(outcome.run_dir / "metrics.csv")["val/elbo"]] == [30]


# -- several processes ---------------------------------------------------------------------------------


# 100 rows, two processes: 5 minibatches of 10 rows each in an epoch, so 20 rows in a step.
DISTRIBUTED = ("trainer=ddp_cpu", "callbacks=checkpoint", "data.binarize=threshold")


def help_by_a_fork(command: list[str], env: dict[str, str], cwd: str | None) -> Forked:
    """In place of the process that Lightning starts: a fork that is told the same and does the same."""
    return Forked(lambda: main(["train"]), environment=env)


def sweep_whose_jobs_have_helpers(words: list[str]) -> int:
    subprocess_script.subprocess = SimpleNamespace(Popen=help_by_a_fork)
    return main(["train", "-m", *words])


def as_torchrun_does(words: list[str]) -> None:
    """torchrun's own launcher, of two processes, which forks instead of starting python twice."""
    settings = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", rdzv_backend="c10d")
    settings.rdzv_endpoint = "localhost:0"

    def begin() -> int:
        take_rank()
        return main(["train", *words])

    codes = elastic_launch(settings, begin)()
    assert codes == {0: 0, 1: 0}, codes


def test_two_processes_write_one_run_whoever_starts_them(runs, tmp_path):
    words = runs.words(*DISTRIBUTED, "seed=0,1")
    process = Forked(lambda: sweep_whose_jobs_have_helpers(words), tmp_path / "lightning")
    assert process.wait() == 0, process.written()
    (sweep,) = (runs.folder / "small").iterdir()
    jobs = [folder for folder in sweep.iterdir() if folder.is_dir()]
    assert len(jobs) == 2
    for folder in jobs:
        assert_distributed_run(folder)
    assert process.written().count("importance samples") == 2  # each table is printed once
    assert "It is recommended" not in process.written()

    words = runs.words(*DISTRIBUTED, f"paths.output_dir={runs.folder / 'torchrun'}")
    process = Forked(lambda: as_torchrun_does(words), tmp_path / "torchrun")
    assert process.wait() == 0, process.written()
    (folder,) = (runs.folder / "torchrun" / "small").iterdir()
    assert_distributed_run(folder)
    assert process.written().count("importance samples") == 1

    (same_seed,) = (job for job in jobs if job.name in folder.name)  # both end with the configuration's hash
    weights = [runs.checkpoint(run.Outcome(path, "done", 0))["state_dict"] for path in (same_seed, folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def assert_distributed_run(folder: Path) -> None:
    assert RunDirectory(folder).status()["state"] == "done"
    result = json.loads((folder / "result.json").read_text())
    assert all(map(math.isfinite, result["metrics"].values()))
    assert result["steps"] == 10
    assert [step for step, _ in read_metrics(folder / "metrics.csv")["val/elbo"]] == [5, 10]


# -- the number of threads -----------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch) -> Iterator[list[int]]:
    """Every measurement of threads finds one more than the last."""
    found: list[int] = []

    def measure(*_) -> int:
        found.append(len(found) + 2)
        return found[-1]

    monkeypatch.setattr(resuming, "measured_threads", measure)
    yield found
    torch.set_num_threads(1)


def threads_of(run_dir: Path) -> tuple[int, int]:
    """As the run's configuration and its provenance have it."""
    provenance = json.loads((run_dir / "provenance.json").read_text())
    return run.read_config(run_dir)["trainer"]["threads"], provenance["hardware"]["threads"]


def test_a_resumed_run_takes_the_number_it_had(runs, measured):
    asked = runs.configure("trainer.max_epochs=1")
    first = runs.train("trainer.max_epochs=1")
    assert threads_of(first.run_dir) == (2, 2)
    assert RunDirectory(first.run_dir).status()["config_hash"] == config_hash(asked)
    RunDirectory(first.run_dir).end("interrupted")
    torch.set_num_threads(1)
    again = runs.train("trainer.max_epochs=1", "ckpt=auto")
    assert again.run_dir == first.run_dir
    assert torch.get_num_threads() == 2
    assert threads_of(first.run_dir) == (2, 2)
    assert measured == [2]


def test_every_new_run_measures(runs, measured):
    assert threads_of(runs.train("trainer.max_epochs=1").run_dir) == (2, 2)
    assert threads_of(runs.train("trainer.max_epochs=1", "seed=1").run_dir) == (3, 3)
    assert threads_of(runs.train("trainer.max_epochs=1", "trainer.threads=1").run_dir) == (1, 1)
    assert threads_of(runs.train("trainer.max_epochs=1", "trainer.threads=null").run_dir) == (None, 1)


def test_evaluation_computes_with_the_threads_of_the_run(runs, measured, capsys):
    outcome = runs.train("trainer.max_epochs=1")
    torch.set_num_threads(1)
    assert main(["evaluate", f"run={outcome.run_dir}", "n_samples=2", "n_images=5"]) == 0
    assert torch.get_num_threads() == 2
