import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from rich.console import Console
from tiny import TinyData, TinyModel, TinyStepper, tiny_trainer

from attelbo.errors import ConfigError, TrainingDiverged
from attelbo.files import read_metrics
from attelbo.training import refuse_ended
from attelbo.training.callbacks import Checkpoint, EarlyStopping, LearningRate, NanGuard, Pictures, Progress
from attelbo.training.callbacks.exhibit import evaluating, isolated_randomness
from attelbo.training.callbacks.progress import clock_time
from attelbo.training.loggers import RunInfo, build_loggers, finish_loggers
from attelbo.training.media import image_grid
from attelbo.training.throughput import Throughput

NAN, INF = float("nan"), float("inf")
# TinyData: 24 rows in minibatches of 3, blocks of 2 steps: 4 blocks, 8 steps an epoch.


def fit(folder: Path, callback: Callback, model: TinyModel, epochs: int = 2, **options: Any) -> TinyModel:
    tiny_trainer(folder, epochs, callbacks=[callback], **options).fit(model, datamodule=TinyData())
    return model


# -- NaN guard -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "step", "epoch", "term", "value", "rows"),
    [
        ({4: {"kl": NAN, "elbo": NAN, "loss": NAN}}, 4, 1, "kl", NAN, (9, 10, 11)),
        ({5: {"reconstruction": -INF, "loss": INF}}, 5, 1, "reconstruction", -INF, (12, 13, 14)),
        ({11: {"loss": INF}}, 11, 2, "loss", INF, (6, 7, 8)),
        ({1: {"kl": INF}, 2: {"kl": NAN}}, 1, 1, "kl", INF, (0, 1, 2)),
    ],
)
def test_nan_guard_names_step_term_and_rows(tmp_path, poison, step, epoch, term, value, rows):
    model = TinyModel(TinyStepper(16, poison))
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, NanGuard(), model)
    error = caught.value
    assert (error.step, error.epoch, error.term, error.rows) == (step, epoch, term, rows)
    assert error.value == value or (math.isnan(error.value) and math.isnan(value))
    assert f"{term} is {value} at optimizer step {step} (epoch {epoch}), in the 3 training rows {rows[0]}, " in str(
        error
    )
    # It stopped at the end of that very block.
    assert model.stepper.step == step + step % 2


def test_nan_guard_is_not_alarmed_by_huge_finite_values(tmp_path):
    largest = torch.finfo(torch.float32).max
    model = fit(tmp_path, NanGuard(), TinyModel(TinyStepper(16, {3: {"kl": largest}, 4: {"kl": largest}})))
    assert model.stepper.step == 16


def test_nan_guard_finds_what_only_validation_shows(tmp_path):
    with pytest.raises(TrainingDiverged, match="val/elbo is nan at optimizer step 16 \\(epoch 2\\)\\. "):
        fit(tmp_path, NanGuard(), TinyModel(TinyStepper(16), val_elbo=[-1.0, NAN]))


def test_diverged_survives_the_way_between_processes():
    error = TrainingDiverged(3, 1, "kl", INF, range(20))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.rows == tuple(range(20))
    assert "in the 20 training rows 0, 1, 2, 3, 4, 5, 6, 7, ..." in str(error)


# -- progress ------------------------------------------------------------------------------------------


class FakeClock:
    """Each block of training takes ``seconds``; a validation step takes nothing."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TickingModel(TinyModel):
    def __init__(self, clock: FakeClock, seconds: float, **options: Any) -> None:
        super().__init__(TinyStepper(16), **options)
        self.clock, self.seconds = clock, seconds

    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.clock.now += self.seconds


def progress_on(clock: FakeClock, terminal: bool, refreshes_per_second: float = 4.0) -> tuple[Progress, io.StringIO]:
    output = io.StringIO()
    progress = Progress(refreshes_per_second)
    progress.clock = clock
    progress.console = Console(file=output, force_terminal=terminal, width=140, color_system=None)
    return progress, output


def test_plain_output_is_one_line_for_each_epoch(tmp_path):
    clock = FakeClock()
    progress, output = progress_on(clock, terminal=False)
    # 8 blocks of 6 rows, 0.25 s each: 24 samples/s. After the first of two epochs, 1 s is left.
    fit(tmp_path, progress, TickingModel(clock, 0.25, val_elbo=[-12.5, -11.0]), enable_progress_bar=True)
    first, second = output.getvalue().splitlines()
    assert first.startswith("epoch 1/2  step 8/16  loss ")
    # TinyStepper gives the step's number as elbo and kl: the last block's mean is 7.5.
    assert "  elbo 7.50  kl 7.50  val/elbo -12.50  24 samples/s  0:01 left" in first
    assert second.startswith("epoch 2/2  step 16/16  ")
    assert second.endswith("val/elbo -11.00  24 samples/s  0:00 left")


def test_the_throughput_of_a_text_is_in_tokens(tmp_path):
    clock = FakeClock()
    progress, output = progress_on(clock, terminal=False)
    model = TickingModel(clock, 0.25)
    model.stepper.row_tokens = 100
    fit(tmp_path, progress, model, epochs=1, enable_progress_bar=True)
    assert "  2,400 tokens/s  " in output.getvalue()


def test_bar_is_drawn_by_the_clock(tmp_path):
    drawn: dict[float, int] = {}
    for seconds in (0.01, 0.125, 1.0):
        clock = FakeClock()
        progress, _ = progress_on(clock, terminal=True)
        count = 0
        draw = progress._draw

        def counting(*arguments: Any, draw: Any = draw) -> None:
            nonlocal count
            count += 1
            draw(*arguments)

        progress._draw = counting
        fit(tmp_path, progress, TickingModel(clock, seconds), enable_progress_bar=True)
        drawn[seconds] = count
    # 8 blocks and two ends of epochs: the first block, then four times a second at most.
    assert drawn == {0.01: 1 + 2, 0.125: 4 + 2, 1.0: 8 + 2}


def test_bar_shows_the_values_and_ends_full(tmp_path):
    clock = FakeClock()
    progress, output = progress_on(clock, terminal=True)
    fit(tmp_path, progress, TickingModel(clock, 1.0), enable_progress_bar=True)
    text = output.getvalue()
    assert "epoch 2/2" in text
    assert "16/16" in text
    assert "kl 15.50" in text
    assert "6 samples/s" in text
    assert progress._bar is None


def test_bar_is_closed_when_training_fails(tmp_path):
    clock = FakeClock()
    progress, _ = progress_on(clock, terminal=True)
    model = TinyModel(TinyStepper(16, {4: {"kl": NAN}}))
    with pytest.raises(TrainingDiverged):
        tiny_trainer(tmp_path, callbacks=[progress, NanGuard()], enable_progress_bar=True).fit(
            model, datamodule=TinyData()
        )
    assert progress._bar is None


def test_throughput_leaves_pauses_out_and_forgets_the_past():
    throughput = Throughput()
    throughput.update(10.0, 0)
    throughput.update(11.0, 1000)
    assert throughput.rate == 1000
    throughput.pause()
    throughput.update(50.0, 1000)  # 39 s of validation
    throughput.update(53.0, 1000 + 3 * 2000)  # after one half-life, half of the way to the new rate
    assert throughput.rate == pytest.approx(1500)
    throughput.update(53.0, 9000)  # no time has passed
    assert throughput.rate == pytest.approx(1500)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00")])
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


# -- pictures ------------------------------------------------------------------------------------------


def test_pictures_are_written_with_the_right_pixels(tmp_path):
    data = TinyData()
    pictures = Pictures(n_samples=4, n_reconstructions=5, n_latent=24, every_n_epochs=2)
    trainer = tiny_trainer(tmp_path, 3, callbacks=[pictures])
    model = TinyModel(TinyStepper(24))
    trainer.fit(model, datamodule=data)
    pictures.publish(trainer, model)
    names = {path.name for path in (tmp_path / "media").iterdir()}
    kinds = ("samples", "reconstructions", "latent_map")
    assert names == {f"{k}.png" for k in kinds} | {f"{k}-epoch0002.png" for k in kinds}

    # Rows spread over the split; in evaluation mode the model's dropout does nothing, so pairs are equal.
    x = data.materialize(torch.tensor([0, 4, 9, 14, 19]), "val").x
    expected = image_grid(torch.cat([x, x]), columns=5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "media" / "reconstructions.png")), expected)
    # The samples are noise here, yet the same at every epoch.
    pixels = [np.asarray(Image.open(tmp_path / "media" / f"samples{suffix}.png")) for suffix in ("", "-epoch0002")]
    np.testing.assert_array_equal(*pixels)
    assert np.unique(pixels[0]).size > 100


def test_pictures_leave_the_run_as_it_was():
    model, data = TinyModel(TinyStepper(1)), TinyData()
    model.train()
    model.dropout.eval()  # a part that its owner has frozen
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = Pictures(n_samples=4).draw(model, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.dropout.training
    torch.manual_seed(4)
    second = Pictures(n_samples=4).draw(model, data)
    other = Pictures(n_samples=4, seed=1).draw(model, data)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["samples"], other["samples"])


def test_evaluation_mode_and_streams_come_back_after_an_error():
    model = TinyModel(TinyStepper(1)).train()
    state = torch.get_rng_state()

    def fail() -> None:
        with evaluating(model), isolated_randomness(torch.device("cpu"), 5):
            torch.rand(3)
            assert not torch.is_grad_enabled()
            assert not model.dropout.training
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert torch.is_grad_enabled()
    assert model.dropout.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["n_samples", "n_reconstructions", "n_latent"])
def test_pictures_refuse_empty_pictures(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Pictures(**{name: 0})


# -- learning rate -------------------------------------------------------------------------------------


class HalvingModel(TinyModel):
    """Halves the learning rate after every block."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.optimizers().param_groups[0]["lr"] /= 2


def test_learning_rate_is_logged_against_optimizer_steps(tmp_path):
    loggers = build_loggers(
        {"csv": {"_target_": "attelbo.training.loggers.CsvLogger"}},
        RunInfo(tmp_path, "n", "id", "g", "train", (), {}),
    )  # fmt: skip
    model = HalvingModel(TinyStepper(16), lr=1.0)
    model.stepper.log_every_n_steps = 4
    fit(tmp_path, LearningRate(), model, epochs=1, logger=loggers)
    finish_loggers(loggers, 0, "done")
    # Start; then every 4 steps (2 blocks); the end of the epoch.
    assert read_metrics(tmp_path / "metrics.csv")["lr"] == [(0, 1.0), (4, 0.25), (8, 0.0625)]


@pytest.mark.parametrize(("interval", "steps"), [(2, range(0, 17, 2)), (5, [0, 6, 8, 10, 16]), (100, [0, 8, 16])])
def test_learning_rate_is_logged_once_at_each_step(tmp_path, interval, steps):
    logger = CSVLogger(tmp_path)
    calls: list[tuple[int, float]] = []
    logger.log_metrics = lambda metrics, step: calls.append((step, metrics["lr"]))
    model = TinyModel(TinyStepper(16), lr=0.5)
    model.stepper.log_every_n_steps = interval
    fit(tmp_path, LearningRate(), model, logger=logger, limit_val_batches=0)
    # Blocks of 2 steps: the first end of a block at or after each multiple, and the end of each epoch.
    assert calls == [(step, 0.5) for step in steps]


# -- checkpoints ---------------------------------------------------------------------------------------


def checkpoints() -> list[Callback]:
    return [Checkpoint(filename="best", monitor="val/elbo"), Checkpoint(filename="last")]


def test_best_and_last_epoch_are_kept_under_fixed_names(tmp_path):
    model = TinyModel(TinyStepper(32), val_elbo=[-3.0, -1.0, -2.0, -2.5])
    trainer = tiny_trainer(tmp_path, 4, callbacks=checkpoints(), enable_checkpointing=True)
    trainer.fit(model, datamodule=TinyData())
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    best, last = (torch.load(folder / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (1, 3)
    # "last" knows the best score so far, and no path at all: the run may be moved.
    assert last["callbacks"]["Checkpoint[best]"] == {"best_model_score": torch.tensor(-1.0), "saved": True}
    assert str(tmp_path) not in repr(last["callbacks"])


def test_a_resumed_run_in_a_moved_directory_keeps_its_best(tmp_path):
    tiny_trainer(tmp_path / "a", 2, callbacks=checkpoints(), enable_checkpointing=True).fit(
        TinyModel(TinyStepper(16), val_elbo=[-3.0, -1.0]), datamodule=TinyData()
    )
    (tmp_path / "a").rename(tmp_path / "b")
    best, last = tmp_path / "b" / "checkpoints" / "best.ckpt", tmp_path / "b" / "checkpoints" / "last.ckpt"
    # -2.0 is worse than the -1.0 of the first part, -0.5 is better
    for epochs, chosen in ((3, 1), (4, 3)):
        trainer = tiny_trainer(tmp_path / "b", epochs, callbacks=checkpoints(), enable_checkpointing=True)
        model = TinyModel(TinyStepper(8 * epochs), val_elbo=[0, 0, -2.0, -0.5])
        trainer.fit(model, datamodule=TinyData(), ckpt_path=last)
        assert torch.load(best, weights_only=True)["epoch"] == chosen
    assert torch.load(last, weights_only=True)["epoch"] == 3
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_diverged_epoch_is_not_saved(tmp_path):
    model = TinyModel(TinyStepper(16, {16: {"kl": NAN}}))
    trainer = tiny_trainer(tmp_path, 2, callbacks=[*checkpoints(), NanGuard()], enable_checkpointing=True)
    with pytest.raises(TrainingDiverged):
        trainer.fit(model, datamodule=TinyData())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


# -- what is watched -----------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize(
    ("callback", "key"),
    [
        (lambda: Checkpoint("best", monitor="val/ebo"), "callbacks.best_checkpoint.monitor"),
        (lambda: EarlyStopping("val/ebo"), "callbacks.early_stopping.monitor"),
    ],
)
def test_a_metric_that_is_not_there_is_told_after_the_first_validation(tmp_path, callback, key, interval):
    model = TinyModel(TinyStepper(32))
    with pytest.raises(
        ConfigError, match=rf"^{key}=val/ebo: no such metric; did you mean val/elbo\? \(there are val/e"
    ):
        fit(tmp_path, callback(), model, 4, check_val_every_n_epoch=interval, enable_checkpointing=True)
    assert model.stepper.step == 8 * interval


def test_patience_is_not_negative():
    with pytest.raises(ValueError, match="patience must be at least 0, got -1"):
        EarlyStopping(patience=-1)


@pytest.mark.parametrize("sign", [1, -1])
def test_patience_ends_after_so_many_validations_that_are_not_better_by_enough(tmp_path, sign):
    model = TinyModel(TinyStepper(48), val_elbo=[sign * value for value in (-3.0, -1.0, -0.9, -0.8, 5.0, 6.0)])
    model.monitor = ("val/elbo", "max" if sign == 1 else "min")
    fit(tmp_path, EarlyStopping(patience=2, min_delta=0.5), model, 6)
    assert model.stepper.step == 8 * 4


def test_without_patience_the_first_validation_that_is_not_better_is_the_last(tmp_path):
    """Also of a run that was interrupted before it."""
    for epochs, done in ((2, 2), (6, 4)):
        last = tmp_path / "checkpoints" / "last.ckpt"
        callbacks = [*checkpoints(), EarlyStopping(patience=0)]
        trainer = tiny_trainer(tmp_path, epochs, callbacks=callbacks, enable_checkpointing=True)
        model = TinyModel(TinyStepper(48), val_elbo=[-3.0, -2.0, -1.0, -1.5, 5.0, 6.0])
        trainer.fit(model, datamodule=TinyData(), ckpt_path=last if last.is_file() else None)
        assert trainer.current_epoch == done


def test_early_stopping_remembers_that_the_metric_was_not_finite(tmp_path):
    def fit_on(ckpt_path: Path | None = None) -> Any:
        callbacks = [*checkpoints(), EarlyStopping()]
        trainer = tiny_trainer(tmp_path, 4, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(
            TinyModel(TinyStepper(32), val_elbo=[-3.0, NAN, -1.0, -0.5]), datamodule=TinyData(), ckpt_path=ckpt_path
        )
        return trainer

    stopped = fit_on()
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 1
    fit_on(last)
    assert torch.load(last, weights_only=True)["epoch"] == 1
    with pytest.raises(ConfigError, match=r"after 2 epochs; val/elbo was not finite there; callbacks=default goes on"):
        refuse_ended(stopped, 64, last, torch.load(last, weights_only=True))
