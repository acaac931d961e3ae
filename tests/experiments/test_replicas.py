"""Many runs in one process against the same runs by themselves: numbers, files, and what becomes of failures."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from offline_wandb import history_of, read_offline_run
from scipy import stats

from attelbo.cli import main
from attelbo.experiments import run
from attelbo.experiments.rundir import RunDirectory, config_hash, locked
from attelbo.files import read_metrics
from attelbo.training import stepping
from attelbo.training.replicas import group
from attelbo.training.replicas.steps import StackedSteps
from attelbo.training.stepping import BlockStepper
from compilers import needs_a_compiler

STACKED = ("trainer.replicas=3", "trainer.stack=true")


@pytest.fixture
def count_stacked(monkeypatch):
    """The numbers of replicas of all blocks that were computed stacked."""
    sizes: list[int] = []
    take = StackedSteps.run

    def counted(self, blocks, first_steps):
        sizes.append(len(blocks))
        return take(self, blocks, first_steps)

    monkeypatch.setattr(StackedSteps, "run", counted)
    return sizes


def train(runs, *words: str, multirun: bool = False) -> tuple[int, Path]:
    """The exit code, and the sweep's directory."""
    code = main(["train", *(["-m"] if multirun else []), *runs.words(*words)])
    (sweep,) = (runs.folder / "small").iterdir()
    return code, sweep


def jobs(sweep: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(sweep.iterdir()) if path.is_dir()}


def states(sweep: Path) -> dict[int, str]:
    """By seed."""
    return {
        json.loads((path / "provenance.json").read_text())["seed"]: RunDirectory(path).status()["state"]
        for path in jobs(sweep).values()
    }


def weights(path: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def result(path: Path) -> dict[str, float]:
    return json.loads((path / "result.json").read_text())["metrics"]


def assert_equal_runs(one: Path, other: Path, tolerance: float) -> None:
    """All jobs of two sweeps: weights, curves and results; a tolerance of 0 means bit for bit."""
    assert jobs(one).keys() == jobs(other).keys()
    for name, path in jobs(one).items():
        twin = jobs(other)[name]
        for checkpoint in ("best", "last"):
            own, expected = weights(path, checkpoint), weights(twin, checkpoint)
            for key, value in own.items():
                torch.testing.assert_close(value, expected[key], rtol=tolerance, atol=tolerance, msg=key)
        curves, expected_curves = read_metrics(path / "metrics.csv"), read_metrics(twin / "metrics.csv")
        assert curves.keys() == expected_curves.keys()
        for key, points in curves.items():
            assert [step for step, _ in points] == [step for step, _ in expected_curves[key]]
            for (_, value), (_, expected) in zip(points, expected_curves[key], strict=True):
                assert value == pytest.approx(expected, rel=tolerance, abs=tolerance), key
        assert result(path) == pytest.approx(result(twin), rel=tolerance, abs=tolerance)


@pytest.fixture(scope="module")
def separate(shared_runs) -> Path:
    """Three seeds, one run after the other."""
    words = shared_runs.words("callbacks=default", "seed=3,4,5", "optimizer.lr=0.003", "scheduler=cosine")
    assert main(["train", "-m", *words]) == 0
    (sweep,) = (shared_runs.folder / "small").iterdir()
    return sweep


SAME = ("callbacks=default", "seed=3", "optimizer.lr=0.003", "scheduler=cosine")


# -- the same runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stack", "tolerance"), [("true", 1e-4), ("false", 0.0)])
def test_replicas_are_the_runs_of_a_sweep(runs, separate, count_stacked, capsys, stack, tolerance):
    command = (*SAME, "trainer.replicas=3", f"trainer.stack={stack}")
    code, sweep = train(runs, *command)
    assert code == 0
    assert sweep.name == separate.name
    assert count_stacked == ([3] * 6 if stack == "true" else [])  # three blocks in each of two epochs
    assert_equal_runs(sweep, separate, tolerance)
    together = 3 if stack == "true" else 1
    for path in jobs(sweep).values():
        made, seconds = json.loads((path / "result.json").read_text()), RunDirectory(path).status()["train_seconds"]
        assert made["replicas"] == together
        # What a run cost is its share: else compare would call it as many times as dear as one by itself.
        assert made["seconds"]["train"] == pytest.approx(seconds / together)
        assert made["samples_per_second"] == pytest.approx(200 * together / seconds)
        files, expected = (
            {f.relative_to(p) for f in p.rglob("*") if f.is_file()} for p in (path, jobs(separate)[path.name])
        )
        assert files == expected
        size, single = ((p / "checkpoints" / "last.ckpt").stat().st_size for p in (path, jobs(separate)[path.name]))
        assert size == pytest.approx(single, rel=0.05)  # and not that of the stack

    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("result.json")}
    capsys.readouterr()
    assert main(["train", "-m", *runs.words(*SAME[:1], "seed=3,4,5", *SAME[2:])]) == 0  # now without replicas
    assert capsys.readouterr().out.count("3 of 3 jobs are done already") == 1
    assert train(runs, *command) == (0, sweep)
    assert capsys.readouterr().out.count("is done already") == 3
    assert before == {path: path.stat().st_mtime_ns for path in sweep.rglob("result.json")}


@pytest.mark.parametrize(("stack", "tolerance"), [("true", 1e-4), ("false", 0.0)])
def test_epochs_of_any_number_of_steps_are_those_of_each_run(runs, count_stacked, stack, tolerance):
    words = ("trainer.steps_per_epoch=7", "seed=3")
    code, sweep = train(runs, *words, "trainer.replicas=2", f"trainer.stack={stack}")
    assert code == 0
    assert count_stacked == ([2] * 4 if stack == "true" else [])  # blocks of 4 and 3 minibatches in each of two epochs
    elsewhere = f"paths.output_dir={runs.folder / 'separate'}"
    assert main(["train", "-m", *runs.words(words[0], "seed=3,4", elsewhere)]) == 0
    (separate,) = (runs.folder / "separate" / "small").iterdir()
    assert_equal_runs(sweep, separate, tolerance)


@pytest.mark.parametrize("objective", ["dreg", "lagging", "piwae"])
def test_two_sides_of_a_model_are_stacked_too(runs, count_stacked, objective):
    """Learning rates of their own, several optimizers, gradients that are not those of the value."""
    words = ("seed=3", "trainer.replicas=2", f"model/objective={objective}", "scheduler=cosine")
    others = type(runs)(runs.folder / "others")
    code, stacked = train(runs, *words, "trainer.stack=true")
    assert code == 0
    assert count_stacked == [2] * 6
    _, in_turn = train(others, *words, "trainer.stack=false")
    assert_equal_runs(stacked, in_turn, 1e-4)


def test_the_table_has_student_intervals(runs, separate, capsys):
    command = [f"paths.output_dir={separate.parents[1]}", *SAME, "trainer.replicas=3"]
    assert main(["train", *runs.words(*command)]) == 0
    out = capsys.readouterr().out
    values = [result(path)["test/elbo"] for path in jobs(separate).values()]
    interval = stats.t.interval(0.95, 2, loc=stats.tmean(values), scale=stats.sem(values))
    line = next(line for line in out.splitlines() if "test/elbo" in line)
    mean, half = (float(word) for word in line.split()[1::2])
    assert (mean - half, mean + half) == pytest.approx(interval, abs=0.01)
    for path in jobs(separate).values():
        assert str(path) in out


def test_a_sweep_is_taken_in_groups_that_can_be_stacked(runs, count_stacked):
    words = (
        "model.latent_dim=2,3",
        "model.objective.free_bits=0.1,0.5",
        "optimizer.lr=0.001,0.01",
        "trainer.replicas=3",
    )
    code, sweep = train(runs, *words, "trainer.stack=true", "trainer.max_epochs=1", multirun=True)
    assert code == 0
    assert len(jobs(sweep)) == 8
    # For each latent_dim 4 jobs: a group of three, stacked in three blocks, and one alone.
    assert count_stacked == [3] * 3 + [3] * 3
    other = runs.folder / "other"
    words = (*words[:3], "trainer.max_epochs=1", f"paths.output_dir={other}")
    assert main(["train", "-m", *runs.words(*words)]) == 0
    (expected,) = (other / "small").iterdir()
    assert_equal_runs(sweep, expected, 1e-4)


# The gradient of a bias of keys is zero but for rounding, of which Adam would make steps.
@pytest.mark.parametrize("model", [(), ("model=gpt", "model.attention.bias=false")], ids=["rows", "tokens"])
def test_small_parts_and_clipping(runs, count_stacked, model):
    """micro-batches, which count by their rows or tokens, and the largest norm act on each replica as on a run by
    itself."""
    words = (*model, "trainer.micro_batches=3", "trainer.clip_norm=0.5", "optimizer.lr=0.01", "data.train_size=97")
    _, sweep = train(runs, *words, *STACKED)
    assert count_stacked
    other = runs.folder / "other"
    assert main(["train", "-m", *runs.words(*words, "seed=0,1,2", f"paths.output_dir={other}")]) == 0
    (expected,) = (other / "small").iterdir()
    assert_equal_runs(sweep, expected, 1e-4)


def test_replicas_of_one_seed_are_no_seeds_which_is_said(runs, capsys):
    words = runs.words("model.objective.weight=1.0,2.0", "trainer.replicas=2", "trainer.max_epochs=1", "name=one_seed")
    assert main(["train", "-m", *words]) == 0
    out = capsys.readouterr().out
    said = (
        "note: 2 of the 2 jobs of this sweep share a process, and all have seed 0; intervals take several, -m seed=0,1"
    )
    assert out.startswith(said)
    assert out.rstrip().endswith("sets the runs side by side")
    assert main(["train", "-m", *words, "seed=0,1"]) == 0
    assert "note: 2 of" not in capsys.readouterr().out


def test_a_sweep_of_replicas_has_a_ledger_and_the_same_job_twice_is_one(runs, capsys):
    code, sweep = train(runs, "seed=1,2,1", "trainer.replicas=3", "trainer.max_epochs=1", multirun=True)
    assert code == 0
    assert set(states(sweep)) == {1, 2}
    capsys.readouterr()
    assert main(["sweep", "status", str(runs.folder)]) == 0
    assert "2 done" in capsys.readouterr().out
    with locked(sweep):  # as by another process
        assert train(runs, "seed=1,2,1", "trainer.replicas=3", "trainer.max_epochs=1", multirun=True)[0] == 2
    assert "is being written by another process" in capsys.readouterr().err


def test_where_stacking_does_not_pay_each_trains_to_its_end(runs, count_stacked, monkeypatch):
    step, trained = BlockStepper.__call__, []
    monkeypatch.setattr(BlockStepper, "__call__", lambda self, block: (trained.append(self.seed), step(self, block))[1])
    without = runs.words(
        "trainer.replicas=4",
        "trainer.max_epochs=1",
        "model/encoder=conv",
        without=("model/encoder=mlp", "model.encoder.hidden=[8]"),
    )
    assert main(["train", *without]) == 0
    assert not count_stacked
    # Each has handed in its first block when it is decided; then the first trains to its end.
    assert trained == [3, 0, 1, 2, *[0] * 2, *[1] * 2, *[2] * 2, *[3] * 2]
    assert main(["train", *runs.words("trainer.replicas=4", "trainer.max_epochs=1")]) == 0
    assert count_stacked == [4, 4, 4]


@needs_a_compiler
def test_replicas_that_are_to_be_compiled_are_not_stacked(runs, count_stacked, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        stepping, "CompiledLosses", lambda losses, rows, required: (compiled.append(required), losses)[1]
    )
    code, sweep = train(runs, "trainer.replicas=2", "trainer.compile=true", "trainer.max_epochs=1")
    assert code == 0
    assert compiled == [True, True]
    assert not count_stacked
    assert [json.loads((run / "result.json").read_text())["replicas"] for run in jobs(sweep).values()] == [1, 1]


def test_those_that_are_left_stay_stacked_where_one_stops_early(runs, count_stacked):
    """Fewer would not be stacked from the start, but what the results say of the training must hold for all of it."""
    words = ("optimizer.lr=0.001,0.002,0.003,0.9", "trainer.replicas=4", "trainer.max_epochs=3")
    early = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.pictures=null")
    code, sweep = train(runs, *words, *early, multirun=True)
    assert code == 0
    assert count_stacked == [4] * 6 + [3] * 3
    results = [json.loads((path / "result.json").read_text()) for path in jobs(sweep).values()]
    assert sorted(result["epochs"] for result in results) == [2, 3, 3, 3]
    assert all(result["replicas"] == 4 and set(result["stacked_with"]) == jobs(sweep).keys() for result in results)


# -- stopped, and gone on with ---------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["true", "false"])
def test_a_signal_saves_every_replica_and_the_same_command_goes_on(runs, separate, monkeypatch, capsys, stack):
    step = BlockStepper.__call__

    def kill_at_12(self, block):
        if self.seed == 4 and self.step >= 10:  # the first block of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, block)

    command = (*SAME, "trainer.replicas=3", f"trainer.stack={stack}")
    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", kill_at_12)
        code, sweep = train(runs, *command)
    assert code == 143
    # In turns, a busy machine may let a run get through before the signal is taken up.
    assert set(states(sweep).values()) <= ({"interrupted"} if stack == "true" else {"interrupted", "done"})
    paths = {json.loads((path / "provenance.json").read_text())["seed"]: path for path in jobs(sweep).values()}
    steps = [torch.load(paths[n] / "checkpoints/last.ckpt", weights_only=True)["global_step"] for n in (3, 4, 5)]
    if stack == "true":
        assert set(steps) <= {10, 14}
    else:  # the first was through, the last had waited with its first block
        assert steps[0] == 20
        assert 10 <= steps[1] <= 20
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    assert train(runs, *command) == (0, sweep)
    assert states(sweep) == dict.fromkeys((3, 4, 5), "done")
    assert_equal_runs(sweep, separate, 1e-4 if stack == "true" else 0.0)


def test_a_signal_during_an_evaluation_acts_at_once(runs, monkeypatch):
    evaluated: list[int] = []

    def interrupted_evaluation(model, data, conditions, *others):
        evaluated.append(conditions.seed)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10_000_000):
            pass
        raise AssertionError("the signal was ignored")

    monkeypatch.setattr(run, "evaluate_model", interrupted_evaluation)
    code, sweep = train(runs, *STACKED, "trainer.max_epochs=1")
    assert code == 143
    assert len(evaluated) == 1
    assert set(states(sweep).values()) == {"interrupted"}


def test_replicas_at_different_steps_go_on_together(runs, separate, monkeypatch):
    """One was killed earlier than the others: its blocks are computed with theirs where they are alike."""

    class KilledError(BaseException):
        pass

    step = BlockStepper.__call__

    def kill_one(self, block):
        step(self, block)
        if self.seed == 4 and self.step == 14:
            raise KilledError

    command = (*SAME, *STACKED)
    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", kill_one)
        with pytest.raises(KilledError):
            train(runs, *command)
    (sweep,) = (runs.folder / "small").iterdir()
    assert states(sweep) == {3: "done", 4: "failed", 5: "done"}
    assert train(runs, *command) == (0, sweep)
    assert_equal_runs(sweep, separate, 1e-4)


# -- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["true", "false"])
def test_one_that_diverges_fails_alone(runs, capsys, stack):
    words = ("callbacks=default", "optimizer.lr=0.001,1e30,0.002", "trainer.replicas=3", f"trainer.stack={stack}")
    code, sweep = train(runs, *words, multirun=True)
    assert code == 1
    out, err = capsys.readouterr()
    (bad,) = (path for path in jobs(sweep).values() if RunDirectory(path).status()["state"] == "failed")
    assert "TrainingDiverged" in RunDirectory(bad).status()["error"]
    assert sum("training diverged" in line and str(bad) in line for line in err.splitlines()) == 1
    assert sum("training diverged" in line and str(bad) in line for line in out.splitlines()) == 1
    other = runs.folder / "other"
    assert main(["train", "-m", *runs.words(words[0], "optimizer.lr=0.001,0.002", f"paths.output_dir={other}")]) == 0
    (expected,) = (other / "small").iterdir()
    for name, path in jobs(expected).items():
        own = weights(jobs(sweep)[name])
        for key, value in weights(path).items():
            torch.testing.assert_close(own[key], value, rtol=1e-4, atol=1e-4)


def test_a_stacked_loss_that_is_not_the_models_own_is_an_error(runs, monkeypatch, capsys):
    monkeypatch.setattr("attelbo.training.replicas.stack.ModelStack.losses", _other_noise())
    assert main(["train", *runs.words(*STACKED)]) == 2
    assert "trainer.stack: the stacked model gives replica 0 the loss" in capsys.readouterr().err
    assert not runs.folder.exists()
    # Where it shows in the training alone, as on another device, the runs that have begun have failed.
    monkeypatch.setattr("attelbo.experiments.replicas.check_stackable", lambda models, batch: None)
    code, sweep = train(runs, *STACKED)
    assert code == 1
    assert set(states(sweep).values()) == {"failed"}
    assert "trainer.stack: the stacked model gives replica 0 the loss" in capsys.readouterr().err


def _other_noise():
    from attelbo.training.replicas.stack import ModelStack

    losses = ModelStack.losses

    def with_shared_streams(self, place, batches, streams):
        for replica in range(len(streams)):
            torch.default_generator.manual_seed(77)
            streams.keep(replica)
        return losses(self, place, batches, streams)

    return with_shared_streams


def test_what_cannot_be_stacked_is_said_or_trained_in_turns(runs, monkeypatch, capsys):
    monkeypatch.setattr("attelbo.latent.distributions.DiagonalNormal.rsample", _alpha_noise)
    assert main(["train", *runs.words(*STACKED)]) == 2
    assert "trainer.stack=true: noise is drawn by alpha_dropout" in capsys.readouterr().err
    assert not runs.folder.exists()
    words = ("trainer.replicas=4", "trainer.max_epochs=1", f"paths.output_dir={runs.folder / 'auto'}")
    assert main(["train", *runs.words(*words)]) == 0
    assert (
        capsys.readouterr().err.count(
            "note: the replicas are trained one after the other, not stacked: noise is drawn by"
        )
        == 1
    )


def _alpha_noise(self, n):
    return torch.nn.functional.alpha_dropout(self.mean.expand(n, *self.mean.shape), 0.5, training=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer=ddp_cpu", "trainer.replicas=2"), "trainer.replicas: replicas share one device"),
        (("trainer.replicas=2", "data.minibatches_per_block=0"), "data.minibatches_per_block must be at least 1"),
        (("trainer.replicas=0",), "trainer.replicas must be at least 1, got 0"),
        (("-m", "trainer.replicas=1,2"), "trainer.replicas must be the same for all jobs"),
        (("trainer.replicas=two",), "trainer.replicas"),
        (
            ("trainer.replicas=2", "data.batch_size=99", "model.encoder.batch_norm=true"),
            "data.batch_size=99: 100 training rows leave a minibatch of 1, and a single row",
        ),
        (
            (*STACKED, "data=reference_sentences", "model=text_vae"),
            "trainer.stack=true takes minibatches of one shape, and on a CPU those of each replica are cropped",
        ),
        ((*STACKED, "trainer.compile=true"), "trainer.stack=true: a stacked model is not compiled"),
    ],
)
def test_what_replicas_cannot_be_combined_with(runs, capsys, words, message):
    multirun, words = words[0] == "-m", [word for word in words if word != "-m"]
    assert main(["train", *(["-m"] if multirun else []), *runs.words(*words)]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not list(runs.folder.rglob("*.json"))


# -- around the training --------------------------------------------------------------------------------


def test_neither_replicas_nor_stacking_are_part_of_what_is_computed(runs):
    plain = runs.configure()
    assert config_hash(plain) == config_hash(runs.configure("trainer.replicas=8", "trainer.stack=false"))


def test_the_first_one_shows_the_progress_of_all(runs, capsys):
    train(runs, *STACKED, "callbacks=default")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line.partition("  step")[0] for line in lines] == ["epoch 1/2 x 3", "epoch 2/2 x 3"]


def test_whoever_trains_shows_its_own_progress(runs, capsys):
    train(runs, "trainer.replicas=3", "trainer.stack=false", "callbacks=default")
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch " in line]
    expected = [f"replica {place}/3  epoch {epoch}/2" for place in (1, 2, 3) for epoch in (1, 2)]
    assert [line.partition("  step")[0] for line in lines] == expected


def test_threads_validate_with_as_many_cores_as_were_asked_for(runs, monkeypatch):
    seen: list[int] = []
    step = BlockStepper.on_validation_batch_start

    def watched(self, *args, **kwargs):
        seen.append(torch.get_num_threads())
        step(self, *args, **kwargs)

    monkeypatch.setattr(BlockStepper, "on_validation_batch_start", watched)
    train(runs, *STACKED, "trainer.max_epochs=1", "trainer.threads=1")
    assert seen == [1, 1, 1]


def test_the_data_are_held_once(runs, monkeypatch):
    groups: list[group.Group] = []
    begin = group.Group.run

    def kept(self, jobs):
        groups.append(self)
        return begin(self, jobs)

    monkeypatch.setattr(group.Group, "run", kept)
    train(runs, *STACKED, "trainer.max_epochs=1")
    assert len(groups[0].loaded) == 1


def test_every_logger_of_every_replica(runs):
    code, sweep = train(runs, *STACKED, "logger=many", "trainer.max_epochs=1")
    assert code == 0
    for path in jobs(sweep).values():
        assert read_metrics(path / "metrics.csv")["val/elbo"]
        assert list((path / "tensorboard").glob("events.*"))
        (folder,) = (path / "wandb").glob("offline-run-*")
        logged = [row["test/elbo"] for row in history_of(read_offline_run(folder)) if "test/elbo" in row]
        assert logged == [pytest.approx(result(path)["test/elbo"])]
