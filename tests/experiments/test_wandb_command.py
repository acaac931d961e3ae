"""`attelbo wandb sync` and `attelbo wandb report`, against a server on the loopback interface."""

import json
import time
from pathlib import Path

import pytest
import yaml
from logged import WANDB, run_info
from offline_wandb import read_offline_run
from wandb_server import logged_in

from attelbo.cli import main
from attelbo.experiments.rundir import config_hash, locked
from attelbo.training.loggers import build_loggers, finish_loggers


def log_offline(folder: Path, run_id: str, steps: range, exit_code: int, state: str) -> Path:
    """One attempt of a run; where it lies."""
    before = set((folder / "wandb").glob("offline-run-*"))
    loggers = build_loggers({"wandb": WANDB}, run_info(folder, run_id))
    for step in steps:
        loggers[-1].log_metrics({"loss": 1 / (1 + step)}, step)
    finish_loggers(loggers, exit_code, state)
    (written,) = set((folder / "wandb").glob("offline-run-*")) - before
    read_offline_run(written)
    return written


def test_runs_logged_offline_are_sent_once_and_attempts_are_one_run(tmp_path, capsys):
    runs = tmp_path / "runs"
    with logged_in(tmp_path / "home") as server:
        first = log_offline(runs / "a", "a", range(3), 143, "interrupted")
        time.sleep(1.1)  # a folder is named by the second
        second = log_offline(runs / "a", "a", range(3, 5), 0, "done")
        other = log_offline(runs / "deep" / "b", "b", range(2), 1, "failed")
        going_on = log_offline(runs / "c", "c", range(1), 0, "done")
        capsys.readouterr()

        with locked(runs / "c"):  # a process is still at work there
            assert main(["wandb", "sync", str(runs)]) == 0
        sent = [f"sent: {path}" for path in (first, second, other)]
        assert capsys.readouterr().out.splitlines() == [*sent, "3 runs sent, 1 still running"]
        assert set(server.runs()) == {"a", "b"}
        rows = server.history("a")
        assert [row["loss"] for row in rows if "loss" in row] == [1 / (1 + step) for step in range(5)]
        numbers = [row["_step"] for row in rows]
        assert numbers == sorted(set(numbers))
        assert (server.exit_codes("a"), server.exit_codes("b")) == ([143, 0], [1])
        assert (server.summary("a")["state"], server.summary("b")["state"]) == ("done", "failed")
        assert (server.runs()["a"]["groupName"], server.runs()["a"]["jobType"]) == ("sweep-1", "train")

        assert main(["wandb", "sync", str(runs / "c"), str(runs)]) == 0
        assert capsys.readouterr().out.splitlines() == [f"sent: {going_on}", "1 run sent, 3 sent already"]
        asked = len(server.operations)
        assert main(["wandb", "sync", str(runs)]) == 0
        assert capsys.readouterr().out == "0 runs sent, 4 sent already\n"
        assert len(server.operations) == asked
        late = log_offline(runs / "d", "d", range(2), 0, "done")
    # No server any more: one line, and nothing is lost.
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", server.address)
        assert main(["wandb", "sync", str(runs)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: wandb sync: no answer from {server.address}: ")
    assert error.endswith("; 1 run not sent yet, 4 sent already: nothing is lost\n")
    assert read_offline_run(late)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two settings, two seeds, as a sweep leaves them."""
    folder = tmp_path / "sweep-1a2b"
    for latent_dim in (2, 8):
        for seed in (0, 1):
            config = {
                "name": "small", "seed": seed, "tags": [],
                "optimizer": {"_target_": "x"}, "scheduler": {"_target_": "x"},
                "data": {"_target_": "x", "name": "digits", "root": "data", "seed": seed},
                "model": {"_target_": "attelbo.models.build_vae", "latent_dim": latent_dim},
                "trainer": {"threads": 1, "replicas": 1, "stack": "auto"}, "paths": {"output_dir": "somewhere"},
                "logger": {"wandb": {"_target_": "x", "project": "ours", "entity": None, "mode": "offline"}},
            }  # fmt: skip
            path = folder / config_hash(config)
            (path / "media").mkdir(parents=True)
            (path / "media" / "samples.png").touch()
            (path / "media" / "samples-epoch0001.png").touch()
            (path / "config.yaml").write_text(yaml.safe_dump(config))
            (path / "status.json").write_text(
                json.dumps({"state": "done", "config_hash": path.name, "started": "2026-01-01T00:00:00"})
            )
            (path / "metrics.csv").write_text("step,epoch,metric,value\n1,0,val/loss,3\n1,0,val/elbo,-3\n1,0,lr,1\n")
            result = {
                "metrics": {"test/elbo": -20.0 - seed, "test/nll": 19.0 - latent_dim},
                "measures": [["nll", "NLL", "nats", 2, "", "less"], ["elbo", "ELBO", "nats", 2, "", "more"]],
                "seconds": {"train": 1.0},
                "monitor": "highest val/elbo",
            }
            (path / "result.json").write_text(json.dumps(result))
    return folder


def test_a_report_says_what_the_server_shall_draw(sweep, capsys):
    assert main(["wandb", "report", str(sweep), "--dry"]) == 0
    file = sweep / "wandb-report.json"
    assert capsys.readouterr().out == f"specification: {file}\n"
    report = json.loads(file.read_text())
    assert (report["displayName"], report["project"]["name"]) == ("small sweep-1a2b", "ours")
    assert report["description"] == "4 runs, 2 settings, seeds 0, 1"
    blocks = report["spec"]["blocks"]
    (table,) = (block["content"] for block in blocks if block["type"] == "markdown-block")
    assert "| model.latent_dim | seeds | NLL, nats | ELBO, nats |" in table
    assert "| 2 | 2 | 17.00 ± 0.00 | -20.50 ± 6.35 |" in table
    settings, runs = (block["metadata"] for block in blocks if block["type"] == "panel-grid")
    for grid, by in ((settings, ["model.value.latent_dim"]), (runs, [])):
        (runset,) = grid["runSets"]
        filters = [(each["key"]["name"], each["op"], each["value"]) for each in runset["filters"]["filters"]]
        assert filters == [("group", "IN", ["sweep-1a2b"]), ("jobType", "!=", "evaluate")]
        assert [key["name"] for key in runset["grouping"]] == by
        assert runset["runFeed"]["columnOrder"] == [
            "run:displayName", "config:model.value.latent_dim", "config:seed.value", "summary:test/nll",
            "summary:test/elbo",
        ]  # fmt: skip
    panels = [(panel["viewType"], panel["config"]) for panel in settings["panelBankSectionConfig"]["panels"]]
    curves = [config for kind, config in panels if kind == "Run History Line Plot"]
    # By what checkpoints were chosen first; the learning rate is no result.
    assert [curve["metrics"] for curve in curves] == [["val/elbo"], ["val/loss"]]
    assert {curve["xAxis"] for curve in curves} == {"trainer/global_step"}
    assert [config["metrics"] for kind, config in panels if kind == "Bar Chart"] == [["test/nll"], ["test/elbo"]]
    panels = {panel["viewType"]: panel["config"] for panel in runs["panelBankSectionConfig"]["panels"]}
    accessors = [column["accessor"] for column in panels["Parallel Coordinates Plot"]["columns"]]
    assert accessors == ["config:model.value.latent_dim", "summary:test/elbo", "summary:test/nll"]
    assert panels["Media Browser"]["mediaKeys"] == ["samples"]
    assert "Run Comparer" in panels

    assert main(["wandb", "report", str(sweep), "--dry", "--metric", "elbo"]) == 0
    assert '"metrics": [\n                    "test/nll"' not in file.read_text()


def test_a_report_is_saved_and_then_brought_up_to_date(sweep, tmp_path, capsys):
    with logged_in(tmp_path / "home") as server:
        for _ in range(2):
            assert main(["wandb", "report", str(sweep)]) == 0
            assert f"report: {server.address}/us/ours/reports/small-sweep-1a2b--view-1" in capsys.readouterr().out
    saved = [told for name, told in server.operations if name == "upsertView"]
    assert [view["id"] for view in saved] == [None, "view-1"]
    assert (saved[0]["projectName"], saved[0]["entityName"]) == ("ours", "us")
    kinds = [block["type"] for block in json.loads(saved[0]["spec"])["blocks"]]
    assert kinds.count("panel-grid") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["snyc"], "wandb snyc: no such command; did you mean sync? (there are sync, report)"),
        (["sync"], "command line: wandb sync: which runs? name a folder; see attelbo wandb --help"),
        (["sync", "nowhere"], "wandb sync: nowhere: no such folder"),
        (["sync", "."], "wandb sync: nothing was logged offline in .; attelbo train logger=wandb does"),
        (["sync", ".", "--dry"], "command line: unrecognized arguments: --dry; see attelbo wandb --help"),
        (["report", "a", "b"], "command line: wandb report: which runs? name one folder; see attelbo wandb --help"),
        (["report", "nowhere"], "wandb report: nowhere: no such folder"),
        (["report", "."], "there is no run in ."),
    ],
)
def test_a_slip_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["wandb", *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_help_needs_no_server(capsys):
    assert main(["wandb"]) == main(["wandb", "sync", "--help"]) == 0
    assert "attelbo wandb sync DIR..." in capsys.readouterr().out
