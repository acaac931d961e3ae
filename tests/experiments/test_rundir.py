"""The run directory: names, locks, states."""

import copy
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from attelbo.errors import UserError
from attelbo.experiments import rundir
from attelbo.experiments.rundir import RunDirectory, config_hash, locked
from attelbo.files import read_config

CONFIG: dict[str, Any] = {
    "name": "small",
    "seed": 0,
    "ckpt": None,
    "tags": [],
    "data": {"name": "digits", "root": "data", "batch_size": 10},
    "model": {"latent_dim": 2},
    "trainer": {"max_epochs": 2, "replicas": 1, "stack": "auto"},
    "logger": {"csv": {}},
    "paths": {"output_dir": "outputs", "data_dir": "data"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, key = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[key] = value
    return config


# -- the hash ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("paths.output_dir", "elsewhere"),
        ("paths.data_dir", "elsewhere"),
        ("data.root", "elsewhere"),
        ("logger", {}),
        ("tags", ["mine"]),
        ("ckpt", "auto"),
        ("trainer.replicas", 4),
        ("trainer.stack", "false"),
    ],
)
def test_the_hash_ignores_where_things_are(path, value):
    assert config_hash(changed(path, value)) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("seed", 1), ("model.latent_dim", 3), ("data.batch_size", 11), ("name", "other"), ("trainer.max_epochs", 3)),
        ("ckpt", "outputs/another/checkpoints/last.ckpt"),
    ],
)
def test_the_hash_knows_what_is_computed(path, value):
    assert config_hash(changed(path, value)) != config_hash(CONFIG)


def test_the_hash_is_that_of_the_content(runs):
    assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)
    assert config_hash(CONFIG) == config_hash(json.loads(json.dumps(CONFIG)))
    assert len(config_hash(CONFIG)) == 8
    # And the same in every process, whatever Python's own hashing does.
    code = f"from attelbo.experiments.rundir import config_hash; print(config_hash({CONFIG!r}))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == config_hash(CONFIG)
    composed = [config_hash(runs.configure(*words)) for words in ((), ("logger=none", "paths.data_dir=x"), ("seed=5",))]
    assert composed[0] == composed[1] != composed[2]


# -- names ---------------------------------------------------------------------------------------------


class FrozenClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def test_runs_that_start_in_the_same_second_do_not_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "datetime", FrozenClock)
    paths = [RunDirectory.new(tmp_path, CONFIG).path for _ in range(3)]
    stem = f"20260102-030405-{config_hash(CONFIG)}"
    assert [path.name for path in paths] == [stem, f"{stem}-2", f"{stem}-3"]
    assert all(path.is_dir() for path in paths)


def test_runs_that_race_get_a_directory_each(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "datetime", FrozenClock)
    start = threading.Barrier(8)

    def make(_: int) -> Path:
        start.wait(30)
        return RunDirectory.new(tmp_path, CONFIG).path

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 8


def test_a_job_finds_its_directory_again(tmp_path):
    run = RunDirectory.job(tmp_path, CONFIG)
    assert run.path.name == config_hash(CONFIG)
    assert RunDirectory.job(tmp_path, CONFIG).path == run.path
    assert RunDirectory.job(tmp_path, changed("seed", 1)).path != run.path


def test_the_latest_run_of_a_configuration(tmp_path):
    assert RunDirectory.latest(tmp_path, CONFIG) is None
    runs = [RunDirectory.new(tmp_path, CONFIG) for _ in range(2)]
    for run in reversed(runs):
        run.begin(CONFIG)
    other = RunDirectory.new(tmp_path, changed("seed", 1))
    other.begin(changed("seed", 1))
    RunDirectory.new(tmp_path, CONFIG)  # never began
    latest = RunDirectory.latest(tmp_path, CONFIG)
    assert latest is not None
    assert latest.path == runs[0].path


def test_an_output_folder_that_is_none(tmp_path):
    file = tmp_path / "outputs"
    file.write_text("precious")
    for make in (RunDirectory.new, RunDirectory.job):
        with pytest.raises(UserError, match=r"paths\.output_dir: cannot make .*outputs.*paths\.output_dir=<folder>"):
            make(file / "digits", CONFIG)
    assert file.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_an_output_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"paths\.output_dir: cannot make"):
        RunDirectory.new(tmp_path / "x", CONFIG)


# -- locks ---------------------------------------------------------------------------------------------


HOLD = """
import sys
from pathlib import Path
from attelbo.experiments.rundir import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_directory_belongs_to_one_process_as_long_as_that_lives(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="is being written by another process"), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):  # its lock went with it, though it could not let go
        pass
    with locked(tmp_path):
        pass


# -- states --------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_keeps_its_start_and_counts(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.status() == {"state": "pending"}
    run.begin(CONFIG)
    first = run.status()
    assert first["state"] == "running"
    assert first["pid"] == os.getpid()
    run.end("failed", 1.5, "Traceback: boom")
    assert run.status()["error"] == "Traceback: boom"
    run.begin(CONFIG)
    assert "error" not in run.status()
    run.end("interrupted")  # before its training
    assert run.status()["train_seconds"] == 1.5
    run.begin(CONFIG)
    run.end("done", 3.5)
    last = run.status()
    assert (last["state"], last["attempts"], last["train_seconds"]) == ("done", 3, 3.5)
    assert last["started"] == first["started"] < last["ended"]


def test_a_run_that_goes_on_removes_what_was_left_half_written(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".status.json.1.tmp", "checkpoints/.last.ckpt.1.tmp", "checkpoints/best.ckpt", "mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "media" / ".samples.1.tmp").mkdir(parents=True)  # a folder of samples
    (tmp_path / "media" / ".samples.1.tmp" / "0.png").write_bytes(b"half")
    RunDirectory(tmp_path).begin(CONFIG)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"best.ckpt", "mine.tmp", "status.json"}


def test_only_a_whole_checkpoint_is_resumable(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.resumable is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.123.tmp").write_bytes(b"half")
    assert run.resumable is None
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"whole")
    assert run.resumable == tmp_path / "checkpoints" / "last.ckpt"


def test_a_curve_is_read_up_to_the_step_that_a_run_goes_on_from(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.curve("val/loss") == []  # nothing was logged
    rows = ("10,0,val/loss,3.0", "20,1,val/loss,2.0", "20,1,val/kl,9.0", "30,2,val/loss,1.0")
    (tmp_path / "metrics.csv").write_text("\n".join(("step,epoch,metric,value", *rows, "")))
    assert run.curve("val/loss") == [3.0, 2.0, 1.0]
    assert run.curve("val/loss", until=20) == [3.0, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"step,epoch,metric,value\n10,0,val/loss,3.0\n20,1,val/lo\n", "metrics.csv, line 3 cannot be read: no step"),
        (b"10,0,val/loss,3.0\n20,1,val/loss,2.0\n", "metrics.csv, line 2 cannot be read: no step"),
        (b"\xff\xfe\n", "metrics.csv cannot be read: "),
        (b"step,epoch,metric,value\n10,0,val/loss,[]\n", "metrics.csv, line 2 cannot be read: no step"),
        (b"step,epoch,metric,value\n10,first,val/loss,1\n", "metrics.csv, line 2 cannot be read: no step"),
        (
            b"step,epoch,metric,value\n\n" + b"1" * 30 + b",0,val/loss,1\n",
            "metrics.csv, line 3 cannot be read: no step",
        ),
        (b"step,epoch,metric,value\n1,0," + b"a" * 200_000 + b",1\n", "metrics.csv, line "),
    ],
)
def test_a_damaged_file_of_curves_is_one_line(tmp_path, content, message):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        RunDirectory(tmp_path).curves()


def test_what_may_be_null_in_a_configuration_is_read(runs):
    run_dir = runs.train("trainer.max_epochs=1", "trainer.threads=null", "logger.csv=null").run_dir
    config = read_config(run_dir)
    assert config["trainer"]["threads"] is None
    assert config["logger"] == {"csv": None}


@pytest.mark.parametrize("content", ["", "[a", "- a", "null"])
def test_damaged_records_of_hydra_are_one_line(tmp_path, content):
    run = RunDirectory(tmp_path)
    assert (run.choices(), run.words()) == ({}, [])  # nothing was recorded
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "choices.yaml").write_text(content)
    with pytest.raises(UserError, match=r"choices\.yaml cannot be read: "):
        run.choices()


def test_of_the_runs_in_a_folder_the_newest_that_is_done_is_found(tmp_path):
    def begun(name: str, started: str, state: str) -> RunDirectory:
        run = RunDirectory(tmp_path / name)
        run.write("status.json", {"state": state, "started": f"{started}T00:00:00"})
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "last.ckpt").touch()
        return run

    begun("a", "2026-01-01", "failed")
    newest = begun("b", "2026-01-05", "interrupted")
    assert RunDirectory.find(tmp_path).path == newest.path
    begun("c", "2026-01-02", "done")
    done = begun("d", "2026-01-03", "done")
    assert RunDirectory.find(tmp_path).path == done.path
    assert RunDirectory.find(tmp_path, lambda run: run.path.name in ("a", "b")).path == newest.path
