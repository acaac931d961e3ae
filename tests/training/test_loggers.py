import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import Logger
from offline_wandb import history_of, read_offline_run
from PIL import Image
from tiny import TinyData, TinyModel, TinyStepper, tiny_trainer

from attelbo.files import read_metrics
from attelbo.training.callbacks import LearningRate, Pictures
from attelbo.training.loggers import (
    CsvLogger,
    RunInfo,
    build_loggers,
    finish_loggers,
    log_work,
    rewind_loggers,
)

CSV = {"_target_": "attelbo.training.loggers.CsvLogger"}
TENSORBOARD = {"_target_": "attelbo.training.loggers.TensorBoard"}
WANDB = {"_target_": "attelbo.training.loggers.WeightsAndBiases", "project": "attelbo", "entity": None}
CONFIG = {"seed": 0, "model": {"latent_dim": 4, "widths": [8, 16]}, "name": "tiny"}
PICTURE = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def run_info(folder: Path) -> RunInfo:
    return RunInfo(folder, "tiny", "abc123", "sweep-1", "train", ("v0.1.0",), CONFIG)


def loggers_for(folder: Path, **nodes: Any) -> list[Logger]:
    run = run_info(folder)
    return build_loggers(
        nodes, run_dir=folder, name=run.name, group=run.group, job_type=run.job_type,
        tags=run.tags, config=CONFIG, run_id=run.run_id,
    )  # fmt: skip


# -- metrics.csv ---------------------------------------------------------------------------------------


def test_csv_is_there_whatever_else_is_chosen_but_not_with_none(tmp_path):
    assert [type(logger).__name__ for logger in loggers_for(tmp_path, tb=TENSORBOARD)] == ["CsvLogger", "TensorBoard"]
    assert [type(logger).__name__ for logger in loggers_for(tmp_path, c=CSV, t=TENSORBOARD)] == [
        "CsvLogger",
        "TensorBoard",
    ]
    assert loggers_for(tmp_path) == []


def test_csv_keeps_full_precision_and_grows_by_lines(tmp_path):
    logger = CsvLogger(run_info(tmp_path))
    logger.log_metrics({"train/loss": 1 / 3, "epoch": 0}, 50)
    first = logger.path.read_bytes()  # on the disk before anything is closed
    logger.log_metrics({"val/elbo": -2.5e-300, "val/nan": float("nan"), "epoch": 1}, 100)
    assert logger.path.read_bytes().startswith(first)
    logger.finalize("success")
    with logger.path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["step", "epoch", "metric", "value"],
        ["50", "0", "train/loss", "0.3333333333333333"],
        ["100", "1", "val/elbo", "-2.5e-300"],
        ["100", "1", "val/nan", "nan"],
    ]
    curves = read_metrics(logger.path)
    assert curves["train/loss"] == [(50, 1 / 3)]
    assert curves["val/elbo"] == [(100, -2.5e-300)]


def test_csv_goes_on_after_the_end_of_training(tmp_path):
    logger = CsvLogger(run_info(tmp_path))
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")
    logger.log_metrics({"a": 2.0}, 2)
    finish_loggers([logger], 0)
    assert read_metrics(logger.path) == {"a": [(1, 1.0), (2, 2.0)]}


def log_and_die(folder: Path) -> None:
    """Three whole lines and a part of the fourth, then the end."""
    logger = CsvLogger(run_info(folder))
    for step in range(1, 4):
        logger.log_metrics({"loss": float(step), "epoch": 0}, step)
    assert logger._file is not None
    logger._file.write("4,0,los")
    logger._file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_csv_goes_on_after_a_kill_in_the_middle_of_a_line(tmp_path):
    # A fork, since importing everything anew takes seconds; the child does nothing but write and die.
    if (child := os.fork()) == 0:
        log_and_die(tmp_path)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    path = tmp_path / "metrics.csv"
    assert path.read_text().endswith("\n4,0,los")
    # Also while it is broken, whole lines can be read.
    assert read_metrics(path) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0)]}
    logger = CsvLogger(run_info(tmp_path))
    logger.log_metrics({"loss": 40.0, "kl": 7.0, "epoch": 1}, 4)
    logger.finalize("success")
    assert read_metrics(path) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)], "kl": [(4, 7.0)]}


def test_resuming_at_a_checkpoint_forgets_what_came_after_it(tmp_path):
    first = CsvLogger(run_info(tmp_path))
    for step in (10, 20, 30):
        first.log_metrics({"loss": float(step), "epoch": step // 20}, step)
    first.finalize("failed")
    whole = first.path.read_bytes()

    second = CsvLogger(run_info(tmp_path))
    rewind_loggers([second], 20)
    assert read_metrics(second.path) == {"loss": [(10, 10.0), (20, 20.0)]}
    second.log_metrics({"loss": 30.0, "epoch": 1}, 30)
    second.finalize("success")
    assert second.path.read_bytes() == whole
    rewind_loggers([CsvLogger(run_info(tmp_path / "new"))], 20)  # nothing there yet


def test_a_metric_name_with_a_comma_survives(tmp_path):
    logger = CsvLogger(run_info(tmp_path))
    logger.log_metrics({'nll, "best"': 1.0}, 1)
    logger.finalize("success")
    assert read_metrics(logger.path) == {'nll, "best"': [(1, 1.0)]}


# -- TensorBoard ---------------------------------------------------------------------------------------


def test_tensorboard_has_numbers_and_the_exact_pixels(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = loggers_for(tmp_path, tb=TENSORBOARD)
    for logger in loggers:
        logger.log_metrics({"val/elbo": -1.5}, 7)
    log_work(loggers, "samples", PICTURE, 7)
    log_work(loggers, "texts", "to be\n\n# or *not*", 7)
    finish_loggers(loggers, 0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/elbo")] == [(7, -1.5)]
    (text,) = events.Tensors("texts/text_summary")
    assert text.tensor_proto.string_val == [b"    to be\n    \n    # or *not*"]  # Markdown of a block that is not set
    (tmp_path / "shown.png").write_bytes(events.Images("samples")[0].encoded_image_string)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "shown.png")), PICTURE)


# -- Weights & Biases ----------------------------------------------------------------------------------


@pytest.fixture
def own_environment(monkeypatch):
    """What the logger sets for wandb does not reach other tests."""
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ERROR_REPORTING", "MODE"):
        monkeypatch.setenv(f"WANDB_{name}", "")
        monkeypatch.delenv(f"WANDB_{name}")


@pytest.mark.usefixtures("own_environment")
def test_an_offline_run_can_be_read_back_from_the_disk(tmp_path):
    loggers = loggers_for(tmp_path, wandb=WANDB)
    pictures = Pictures(n_samples=4, n_reconstructions=4, n_latent=8)
    trainer = tiny_trainer(tmp_path, 2, logger=loggers, callbacks=[LearningRate(), pictures])
    model = TinyModel(TinyStepper(16), val_elbo=[-3.0, -2.0])
    try:
        trainer.fit(model, datamodule=TinyData())
        pictures.publish(trainer, model)
        log_work(loggers, "texts", "to be\n<b>", 16)
    finally:
        finish_loggers(loggers, 3)

    (folder,) = (tmp_path / "wandb").glob("offline-run-*-abc123")
    records = read_offline_run(folder)
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.run_id, run.project, run.run_group, run.job_type) == ("abc123", "attelbo", "sweep-1", "train")
    assert (run.display_name, list(run.tags)) == ("tiny", ["v0.1.0"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in CONFIG} == CONFIG

    history = history_of(records)
    assert [row["val/elbo"] for row in history if "val/elbo" in row] == [-3.0, -2.0]
    learning_rates = [(row["trainer/global_step"], row["lr"]) for row in history if "lr" in row]
    assert (learning_rates[0], learning_rates[-1]) == ((0, 0.01), (16, 0.01))
    table = next(row for row in history if "texts" in row)["texts"]
    written = json.loads((folder / "files" / table["path"]).read_text())
    assert (written["columns"], written["data"]) == (["text"], [["to be\n<b>"]])
    shown = next(row for row in history if "samples" in row)
    assert shown["trainer/global_step"] == 16
    for key in ("samples", "reconstructions", "latent_map"):
        picture = next(row for row in history if key in row)[key]
        (name,) = picture["filenames"]
        logged = np.asarray(Image.open(folder / "files" / name))
        np.testing.assert_array_equal(logged, np.asarray(Image.open(tmp_path / "media" / f"{key}.png")))
    assert next(record.exit.exit_code for record in records if record.HasField("exit")) == 3
    # Everything lies in the run directory.
    for purpose in ("DATA", "CACHE", "CONFIG"):
        assert Path(os.environ[f"WANDB_{purpose}_DIR"]).is_relative_to(tmp_path)


@pytest.mark.usefixtures("own_environment")
def test_the_next_job_of_the_process_has_a_run_of_its_own(tmp_path):
    for name in ("a", "b"):
        loggers = build_loggers(
            {"wandb": WANDB}, run_dir=tmp_path / name, name=name, group="g", job_type="train", tags=(), config={}
        )
        for logger in loggers:
            logger.log_metrics({"loss": 1.0}, 1)
        finish_loggers(loggers, 0)
    for name in ("a", "b"):
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert folder.name.endswith(f"-{tmp_path.name.replace('.', '-')}-{name}")
        assert sum("loss" in row for row in history_of(read_offline_run(folder))) == 1


@pytest.mark.usefixtures("own_environment")
def test_a_resumed_run_has_the_same_id(tmp_path):
    for step in (1, 2):
        loggers = loggers_for(tmp_path, wandb=WANDB)
        loggers[-1].log_metrics({"loss": float(step)}, step)
        finish_loggers(loggers, 0)
    runs = [
        next(record.run for record in read_offline_run(folder) if record.HasField("run"))
        for folder in (tmp_path / "wandb").glob("offline-run-*")
    ]
    assert {run.run_id for run in runs} == {"abc123"}


def test_one_logger_that_fails_to_close_does_not_keep_the_others_from_it(tmp_path):
    class Broken(CsvLogger):
        def finalize(self, status: str) -> None:
            raise OSError("disk full")

    closed: list[str] = []

    class Whole(CsvLogger):
        def finalize(self, status: str) -> None:
            closed.append(status)

    run = run_info(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        finish_loggers([Whole(run), Broken(run), Whole(run)], 1)
    assert closed == ["failed", "failed"]
