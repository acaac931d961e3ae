"""What dashboards are told of a run: in which group, as which job, with which tags, and what it came to."""

import json
from pathlib import Path
from typing import Any

import pytest
from offline_wandb import read_offline_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attelbo.experiments.boards import telling
from attelbo.experiments.evaluation import evaluate
from attelbo.experiments.run import train
from attelbo.experiments.rundir import RunDirectory

WORDS = ("logger=many", "trainer.max_epochs=1", "tags=[first-try]", "trainer.threads=1")
CHOICES = {"experiment": "digits/vae_mlp", "model": "vae"}


@pytest.fixture(autouse=True)
def version(monkeypatch):
    """The same whatever the state of the checkout."""
    monkeypatch.setattr(telling, "git_tag", lambda: "git-1a2b3c4")


def wandb_run(folder: Path, part: str = "") -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The run record, the configuration and the summary of what was logged offline."""
    ends = part or folder.name
    (written,) = (path for path in (folder / "wandb").glob("offline-run-*") if path.name.endswith(ends))
    records = read_offline_run(written)
    run = next(record.run for record in records if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    items = [item for record in records for item in record.summary.update]
    return run, config, {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_a_job_of_a_sweep_and_its_evaluation(runs, monkeypatch, capsys):
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ERROR_REPORTING"):
        monkeypatch.setenv(f"WANDB_{name}", "")
    config = runs.configure(*WORDS)
    outcome = train(config, [], CHOICES, runs.folder / "sweep-5", job_type="reproduce")
    path, result = outcome.run_dir, json.loads((outcome.run_dir / "result.json").read_text())
    run, logged, summary = wandb_run(path)
    assert (run.run_group, run.job_type, run.run_id) == ("sweep-5", "reproduce", f"sweep-5-{path.name}")
    assert run.display_name == f"small/{path.name}"
    assert list(run.tags) == ["first-try", "digits/vae_mlp", "git-1a2b3c4"]
    assert logged["model"]["latent_dim"] == config["model"]["latent_dim"]
    assert {key: summary[key] for key in result["metrics"]} == result["metrics"]
    assert (summary["state"], summary["steps"], summary["checkpoint"]) == ("done", 10, "best")

    evaluate(str(path), "test", 3, 5, 100, None, "best", 0, "cpu")
    assert "NLL" in capsys.readouterr().out
    run, _, summary = wandb_run(path, "evaluate-test")
    assert (run.run_group, run.job_type) == ("sweep-5", "evaluate")
    assert run.display_name == f"small/{path.name} evaluate-test"
    measured = json.loads((path / "evaluation-test.json").read_text())
    assert (summary["test/nll"], summary["nll_samples"]) == (measured["metrics"]["test/nll"], 3)
    # What TensorBoard has of both; metrics.csv is that of the training.
    for folder, metrics in (("tensorboard", result["metrics"]), ("tensorboard/evaluate-test", measured["metrics"])):
        events = EventAccumulator(str(path / folder / "hparams"))
        events.Reload()
        assert [event.value for event in events.Scalars("test/nll")] == [pytest.approx(metrics["test/nll"])]


def test_a_run_alone_is_grouped_by_its_name(runs):
    config = runs.configure()
    run = RunDirectory.new(runs.folder / "small", config)
    run.describe(config, [], {}, {})
    run.begin(config)
    info = telling.run_info(run, config, "train")
    assert (info.group, info.name) == ("small", f"small/{run.path.name}")
    assert info.run_id == f"small-{run.path.name}"
    assert info.tags == ("git-1a2b3c4",)


def test_reproduce_says_what_its_runs_are_for(monkeypatch):
    from attelbo.cli import several
    from attelbo.experiments.papers import command

    monkeypatch.setattr(command, "plan_of", lambda *given: None)
    monkeypatch.setattr(command, "reproduce", lambda hydra, paper, budget, plan, task, *more: task.keywords["job_type"])
    assert several.reproduce(["sort_reverse", "--budget", "smoke"]) == "reproduce"
