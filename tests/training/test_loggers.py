import csv
import dataclasses
import os
import signal
from pathlib import Path
from unittest import mock

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from logged import CSV, TENSORBOARD, loggers_for, run_info

from attelbo.errors import ConfigError, UserError
from attelbo.files import read_metrics
from attelbo.training.loggers import CsvLogger, build_loggers, check_loggers, finish_loggers, rewind_loggers


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
    finish_loggers([logger], 0, "done")
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


def test_a_result_that_was_logged_and_not_written_is_not_there_twice(tmp_path):
    """A run killed in between goes on at its last step, at which the result stands too."""
    for _ in range(2):
        logger = CsvLogger(run_info(tmp_path))
        rewind_loggers([logger], 20)
        logger.log_metrics({"test/elbo": -5.0}, 20)
        logger.finalize("failed")
    assert read_metrics(logger.path) == {"test/elbo": [(20, -5.0)]}


def test_a_metric_name_with_a_comma_survives(tmp_path):
    logger = CsvLogger(run_info(tmp_path))
    logger.log_metrics({'nll, "best"': 1.0}, 1)
    logger.finalize("success")
    assert read_metrics(logger.path) == {'nll, "best"': [(1, 1.0)]}


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
        finish_loggers([Whole(run), Broken(run), Whole(run)], 1, "failed")
    assert closed == ["failed", "failed"]


class Noted(Logger):
    """One of somebody else, with an option that is called like the run of ours."""

    def __init__(self, word: str, run: str | None = None) -> None:
        super().__init__()
        self.run, self.word = run, word

    name = version = "noted"

    def log_metrics(self, metrics: dict, step: int | None = None) -> None: ...

    def log_hyperparams(self, params: dict) -> None:
        self.params = params


NOTED = f"{__name__}.Noted"
LIGHTNINGS = {
    "csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"},
    "tensorboard": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "name": "tb"},
    "noted": {"_target_": NOTED, "word": "mine"},
}


def test_loggers_of_others_are_told_the_folder_and_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTELBO_PACKAGES", NOTED.partition(".")[0])
    check_loggers(LIGHTNINGS)
    loggers = loggers_for(tmp_path, **LIGHTNINGS)
    assert [type(logger) for logger in loggers] == [CsvLogger, CSVLogger, TensorBoardLogger, Noted]
    for logger in loggers:
        logger.log_metrics({"val/loss": 0.25}, 7)
    finish_loggers(loggers, 0, "done")
    with (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": "7", "val/loss": "0.25"}]
    assert "latent_dim: 4" in (tmp_path / "lightning_logs" / "version_0" / "hparams.yaml").read_text()
    assert list((tmp_path / "tb").rglob("events.*"))
    assert loggers[-1].run is None  # pyright: ignore[reportAttributeAccessIssue]
    assert loggers[-1].params["seed"] == 0  # pyright: ignore[reportAttributeAccessIssue]
    afterwards = dataclasses.replace(run_info(tmp_path), part="evaluate-test")
    assert [type(logger) for logger in build_loggers(LIGHTNINGS, afterwards)] == []


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": NOTED}, f"logger.x: {NOTED} needs word"),
        ({"_target_": "torch.nn.Identity"}, "logger.x: torch.nn.Identity is no lightning.pytorch.loggers.Logger"),
    ],
)
def test_what_is_no_logger_or_lacks_something_is_refused(monkeypatch, node, message):
    monkeypatch.setenv("ATTELBO_PACKAGES", NOTED.partition(".")[0])
    with pytest.raises(ConfigError, match=message):
        check_loggers({"x": node})


def test_a_logger_that_cannot_be_made_is_named(tmp_path):
    with (
        mock.patch("lightning.pytorch.loggers.CSVLogger.__init__", side_effect=ModuleNotFoundError("mlflow")),
        pytest.raises(UserError, match=r"logger.csv: mlflow \[lightning.pytorch.loggers.CSVLogger\]"),
    ):
        loggers_for(tmp_path, csv=LIGHTNINGS["csv"])
