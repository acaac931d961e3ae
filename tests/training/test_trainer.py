"""The Trainer that a configuration becomes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from attelbo.errors import ConfigError
from attelbo.training import BlockStepper, attach_run, build_trainer, check_settings, trainer
from attelbo.training.callbacks import Progress
from attelbo.training.checkpoint import AtomicCheckpointIO
from attelbo.training.interruption import Interruption


def make(folder: Path, **options: Any) -> Trainer:
    given = {"seed": 0, "callbacks": {}, "max_epochs": 1, "accelerator": "cpu"}
    given |= {"threads": "auto", "compile": "auto", "replicas": 1, "stack": "auto"}
    given |= options
    check_settings(**given)
    return build_trainer(run_dir=folder, **given)


def test_the_stepper_comes_first_and_knows_its_settings(tmp_path):
    node = {"_target_": "attelbo.training.callbacks.NanGuard"}
    made = make(tmp_path, seed=3, callbacks={"nan_guard": node}, clip_norm=2.0, micro_batches=4, log_every_n_steps=7)
    callbacks: list[Any] = made.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    stepper = callbacks[0]
    assert isinstance(stepper, BlockStepper)
    assert (stepper.seed, stepper.clip_norm, stepper.micro_batches, stepper.log_every_n_steps) == (3, 2.0, 4, 7)
    assert sum(isinstance(callback, Interruption) for callback in callbacks) == 1
    assert isinstance(made.strategy.checkpoint_io, AtomicCheckpointIO)
    assert made.default_root_dir == str(tmp_path)
    assert not made.checkpoint_callbacks
    assert made.progress_bar_callback is None


def test_a_trainer_is_settled_where_its_run_is(tmp_path):
    logger = DummyLogger()
    made = make(tmp_path)
    assert attach_run(made, tmp_path / "run", [logger]) is made
    assert (made.default_root_dir, made.loggers) == (str(tmp_path / "run"), [logger])


def test_a_progress_bar_is_ours_or_none(tmp_path):
    node = {"_target_": "attelbo.training.callbacks.Progress", "refreshes_per_second": 4.0}
    assert isinstance(make(tmp_path, callbacks={"progress": node}).progress_bar_callback, Progress)


def test_threads(tmp_path):
    before = torch.get_num_threads()
    try:
        make(tmp_path, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_optimizers_do_not_ask_the_driver_at_every_step(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make(tmp_path)
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": -1, "max_steps": -1}, "trainer.max_epochs or trainer.max_steps must be at least 1"),
        ({"max_epochs": 0}, "trainer.max_epochs must be at least 1, got 0; -1 is no limit"),
        ({"max_steps": 0}, "trainer.max_steps must be at least 1, got 0; -1 is no limit"),
        ({"micro_batches": 0}, "trainer.micro_batches must be at least 1, got 0"),
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps must be at least 1, got 0"),
        ({"threads": 0}, "trainer.threads must be at least 1, got 0"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be at least 1, got 0"),
        ({"clip_norm": 0.0}, "trainer.clip_norm must be above 0 and finite, got 0.0"),
        ({"clip_norm": float("nan")}, "trainer.clip_norm must be above 0 and finite, got nan"),
        ({"clip_norm": -1.0}, "trainer.clip_norm must be above 0 and finite, got -1.0"),
        ({"clip_norm": float("inf")}, "trainer.clip_norm must be above 0 and finite, got inf"),
        ({"limit_train_blocks": 0}, "trainer.limit_train_blocks must be at least 1, got 0"),
        ({"limit_val_batches": 0}, "trainer.limit_val_batches must be at least 1, got 0"),
        ({"accelerator": "gqu"}, "trainer: .*accelerator.*gqu"),
        ({"strategy": "dpp"}, "trainer: .*strategy.*dpp"),
        ({"devices": 0}, "trainer: .*devices"),
        ({"devices": -1}, "trainer: .*devices=-1"),  # all GPUs
        ({"devices": [1]}, r"trainer: .*devices=\[1\]"),  # the second GPU
        ({"threads": 10**9}, "trainer.threads must be at most 1,024, got 1,000,000,000; auto measures it"),
        ({"strategy": "fsdp"}, "trainer.strategy=fsdp: sharded parameters .*trainer=ddp"),
    ],
)
def test_what_cannot_be_is_a_configuration_error(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(tmp_path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer: .+"):
        make(tmp_path, accelerator="gpu")


def test_bf16_on_a_cpu_without_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.precision=bf16-mixed: this CPU has no bf16 arithmetic"):
        make(tmp_path, precision="bf16-mixed")


@pytest.mark.skipif(not trainer.bf16_is_fast("cpu"), reason="this CPU has no bf16 arithmetic")
def test_bf16_trains(runs):
    words = ("trainer.max_epochs=3", "optimizer.lr=0.01", "data.binarize=threshold")
    half = runs.fit(*words, "trainer.precision=bf16-mixed")
    full = runs.fit(*words)
    losses = [float(t.callback_metrics["val/loss"]) for t in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert all(p.dtype == torch.float32 for p in half.lightning_module.parameters())


@pytest.mark.skipif(not trainer.bf16_is_fast("cpu"), reason="this CPU has no bf16 arithmetic")
def test_validations_are_in_full_precision(runs):
    words = ("trainer.max_epochs=1", "optimizer.lr=0.0")  # the weights stay as they are
    half, full = (runs.fit(*words, f"trainer.precision={precision}") for precision in ("bf16-mixed", "32-true"))
    names = ("val/elbo", "val/kl", "val/loss")
    assert [half.callback_metrics[name] for name in names] == [full.callback_metrics[name] for name in names]
    assert half.callback_metrics["train/loss_epoch"] != full.callback_metrics["train/loss_epoch"]
