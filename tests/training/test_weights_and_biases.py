import io
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged import CONFIG, NUMBERS, PICTURE, RESULT, WANDB, loggers_for, run_info
from offline_wandb import history_of, read_offline_run
from PIL import Image
from tiny import TinyData, TinyModel, TinyStepper, tiny_trainer
from wandb_server import logged_in

from attelbo.errors import UserError
from attelbo.training.callbacks import LearningRate, Pictures
from attelbo.training.loggers import build_loggers, finish_loggers, log_result, log_work


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
        finish_loggers(loggers, 3, "failed")

    (folder,) = (tmp_path / "wandb").glob("offline-run-*-abc123")
    records = read_offline_run(folder)
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.run_id, run.project, run.run_group, run.job_type) == ("abc123", "attelbo", "sweep-1", "train")
    assert (run.display_name, list(run.tags)) == ("tiny", ["v0.1.0"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: config[key] for key in CONFIG} == CONFIG

    defined = [record.metric for record in records if record.HasField("metric")]
    metrics = {metric.name or metric.glob_name: metric for metric in defined}
    assert (metrics["*"].step_metric, metrics["*"].options.step_sync) == ("trainer/global_step", True)
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
        loggers = build_loggers({"wandb": WANDB}, run_info(tmp_path / name, f"id-{name}"))
        for logger in loggers:
            logger.log_metrics({"loss": 1.0}, 1)
        finish_loggers(loggers, 0, "done")
    for name in ("a", "b"):
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert folder.name.endswith(f"-id-{name}")
        assert sum("loss" in row for row in history_of(read_offline_run(folder))) == 1


@pytest.mark.usefixtures("own_environment")
def test_a_resumed_run_has_the_same_id(tmp_path):
    for step in (1, 2):
        loggers = loggers_for(tmp_path, wandb=WANDB)
        loggers[-1].log_metrics({"loss": float(step)}, step)
        finish_loggers(loggers, 0, "done")
        time.sleep(1.1)  # a folder is named by the second
    attempts = [read_offline_run(folder) for folder in sorted((tmp_path / "wandb").glob("offline-run-*"))]
    runs = [next(record.run for record in records if record.HasField("run")) for records in attempts]
    assert [run.run_id for run in runs] == ["abc123", "abc123"]
    first, second = ([row["_step"] for row in history_of(records) if "loss" in row] for records in attempts)
    assert max(first) < min(second)


def ended(folder: Path, exit_code: int, state: str) -> list[Any]:
    """The records of a run that ended so."""
    loggers = loggers_for(folder, wandb=WANDB)
    loggers[-1].log_metrics({"loss": 1.0}, 1)
    if exit_code == 0:
        log_result(loggers, RESULT, 7)
    finish_loggers(loggers, exit_code, state)
    (written,) = (folder / "wandb").glob("offline-run-*")
    return read_offline_run(written)


def summary_of(records: list[Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for record in records:
        for item in record.summary.update:
            summary[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return summary


@pytest.mark.usefixtures("own_environment")
def test_how_a_run_ended_is_told_apart(tmp_path):
    ends = {"done": 0, "pruned": 0, "interrupted": 143, "failed": 1}
    for state, code in ends.items():
        records = ended(tmp_path / state, code, state)
        assert next(record.exit.exit_code for record in records if record.HasField("exit")) == code
        assert any(record.HasField("preempting") for record in records) == (state == "interrupted")
        tags = [list(record.run.tags) for record in records if record.HasField("run")][-1]
        assert tags == (["v0.1.0", "pruned"] if state == "pruned" else ["v0.1.0"])
        summary = summary_of(records)
        assert summary["state"] == state
        assert ({key: summary[key] for key in NUMBERS} == NUMBERS) if code == 0 else "test/nll" not in summary


def test_a_run_online_and_its_second_attempt(tmp_path):
    with logged_in(tmp_path / "home") as server:
        for attempt, (code, state) in enumerate([(143, "interrupted"), (0, "done")]):
            loggers = loggers_for(tmp_path, wandb={**WANDB, "mode": "online"})
            for step in range(3 * attempt, 3 * attempt + 3):
                loggers[-1].log_metrics({"loss": 1 / (1 + step)}, step)
            if state == "done":
                log_work(loggers, "samples", PICTURE, 6)
                log_result(loggers, RESULT, 6)
            finish_loggers(loggers, code, state)
    run = server.runs()["abc123"]
    assert (run["groupName"], run["jobType"], run["tags"]) == ("sweep-1", "train", ["v0.1.0"])
    config = json.loads(run["config"])
    assert {key: config[key]["value"] for key in CONFIG} == CONFIG
    rows = [row for row in server.history("abc123") if "loss" in row]
    assert [row["trainer/global_step"] for row in rows] == list(range(6))
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert [row["loss"] for row in rows] == [1 / (1 + step) for step in range(6)]
    assert server.exit_codes("abc123") == [143, 0]
    assert {key: server.summary("abc123")[key] for key in NUMBERS} == NUMBERS
    (png,) = (content for path, content in server.files.items() if path.endswith(".png"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), PICTURE)


@pytest.mark.usefixtures("own_environment")
def test_without_a_server_a_run_online_ends_at_once_in_one_line(tmp_path, monkeypatch):
    import wandb

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    wandb.teardown()
    with pytest.raises(UserError, match=f"mode=online: no answer from {address}: .*refused; logger.wandb.mode=offline"):
        loggers_for(tmp_path, wandb={**WANDB, "mode": "online"})[-1].log_metrics({"loss": 1.0}, 0)
    wandb.teardown()
