"""Sweeps: their jobs, their ledger, and that the same command again goes on where it stopped."""

import fcntl
import json
import signal
import time
from pathlib import Path

import pytest

from attelbo.cli import main
from attelbo.errors import ConfigError, UserError
from attelbo.experiments import run
from attelbo.experiments.rundir import RunDirectory, locked
from attelbo.experiments.sweeps.expanding import expand, shared_words
from attelbo.experiments.sweeps.ledger import Ledger, differing_words, summary
from forked import command

HASHES = ["aaaaaaaa", "bbbbbbbb", "cccccccc"]


def planned(*seeds: int) -> list[tuple[str, list[str]]]:
    return [(HASHES[seed], [f"seed={seed}", "data=digits"]) for seed in seeds]


# -- which jobs ----------------------------------------------------------------------------------------


def test_zipped_lists_go_together_and_names_are_combined() -> None:
    words = ["seed=0,1", "zip:model.latent_dim=2,8", "zip:optimizer.lr=1e-2,1e-3", "zip2:data.batch_size=10,20,30"]
    jobs = expand("train", words)
    assert jobs is not None
    assert len(jobs) == 2 * 2 * 3
    assert jobs[0] == ["seed=0", "model.latent_dim=2", "optimizer.lr=0.01", "data.batch_size=10"]
    assert {tuple(job[1:3]) for job in jobs} == {
        ("model.latent_dim=2", "optimizer.lr=0.01"),
        ("model.latent_dim=8", "optimizer.lr=0.001"),
    }
    assert shared_words([*words, "name=x"]) == ["name=x"]


def test_a_zipped_list_may_be_a_pattern_of_names() -> None:
    jobs = expand("train", ["zip:model/likelihood=glob(bern*)", "zip:seed=3"])
    assert jobs == [["model/likelihood=bernoulli", "seed=3"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "seed=range(0,99999999999)"], "command line: 99,999,999,999 jobs, more than the 10,000 that one"),
        (["-m", "seed=range(0,200)", "data.batch_size=range(1,200)"], "command line: 39,800 jobs, more than"),
        (["-m", "seed=range(1,99999999999)", "data.batch_size=range(3,3)"], "command line: no job is left"),
        (["-m", "zip:seed=range(0,99999999999)"], "seed=range(0,99999999999) (command line): 99,999,999,999 jobs"),
        (["-m", "seed=range(0,9,0)"], "seed=range(0,9,0) (command line): start, stop and step are finite, and step"),
        (["-m", "optimizer.lr=range(0.0,inf)"], "optimizer.lr=range(0.0,inf) (command line): start, stop and step"),
        (
            ["-m", "zip:model/likelihood=glob(berm*)"],
            "model/likelihood=glob(berm*) (command line): no choice is called",
        ),
        (["trainer.replicas=99999999999"], "trainer.replicas=99999999999: 99,999,999,999 jobs, more than the 10,000"),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_jobs_are_counted_before_they_are_composed(command, words, message, capsys, tmp_path) -> None:
    assert main([command, *words, f"paths.output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["zip:model.latent_dim=2,8", "zip:optimizer.lr=1,2,3"],
            "zip: (command line): zipped lists must be equally long, got model.latent_dim 2 and optimizer.lr 3 values",
        ),
        (["zip:model.latnet_dim=2,8"], "model.latnet_dim (command line): unknown key"),
        (["zip:seed=1,2", "seed=3"], "seed (command line): given twice, as 'seed=3' and 'seed=1'; keep one"),
    ],
)
def test_what_is_wrong_with_zipped_lists_is_one_line(words, message, capsys) -> None:
    assert main(["train", "-m", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# -- the ledger ----------------------------------------------------------------------------------------


def test_states_are_counted_and_words_that_differ_told() -> None:
    assert summary(["failed", "done", "pending", "done"]) == "2 done, 1 failed, 1 pending"
    assert summary([]) == "no jobs"
    assert differing_words([["a=1", "seed=1"], ["a=1", "seed=2"]]) == [["seed=1"], ["seed=2"]]
    assert differing_words([["a=1", "seed=1"]]) == [["a=1", "seed=1"]]


@pytest.mark.parametrize(("state", "seconds"), [("pruned", 3.5), ("failed", None)])
def test_of_jobs_without_a_result_those_that_were_pruned_have_a_time(
    tmp_path: Path, state: str, seconds: float | None
) -> None:
    ledger = Ledger.open(tmp_path, [("a", ["seed=1"]), ("b", ["seed=2"])])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "status.json").write_text(json.dumps({"state": state, "train_seconds": 3.5}))
    assert [ledger.seconds(job) for job in ledger.jobs] == [seconds, None]


def test_a_sweep_may_grow_and_its_jobs_keep_their_numbers(tmp_path: Path) -> None:
    Ledger.open(tmp_path, planned(1))
    grown = Ledger.open(tmp_path, planned(0, 1, 2))
    assert [(job.number, job.hash[0]) for job in grown.jobs] == [(0, "b"), (1, "a"), (2, "c")]
    assert Ledger.read(tmp_path) == grown


def test_another_sweep_in_its_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    Ledger.open(tmp_path, planned(0, 1))
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(ConfigError, match=r"is another sweep: seed 0,1 there, 1,2 here; .* \(1 of its 2 jobs"):
        Ledger.open(tmp_path, planned(1, 2))
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_states_are_those_of_the_directories_and_the_killed_are_told_from_the_running(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, planned(0, 1))
    first, second = ledger.jobs
    assert ledger.state(first) == "pending"
    directory = ledger.directory(first)
    directory.path.mkdir()
    directory.write("status.json", {"state": "running"})
    assert ledger.state(first) == "killed"
    with (directory.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ledger.state(first) == "running"
    directory.write("status.json", {"state": "done"})
    ledger.write()
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert [job["state"] for job in written["jobs"]] == ["done", "pending"]
    assert ledger.state(second) == "pending"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"jobs": [{}]}', '{"jobs": [{"number": 0, "hash": 3, "words": []}]}', '{"jobs": [], "search": 1}'],
)
def test_a_damaged_ledger_is_one_line_and_stays_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json cannot be read"):
        Ledger.open(tmp_path, planned(0))
    assert (tmp_path / "sweep.json").read_text() == content


def test_one_damaged_ledger_hides_no_other(tmp_path: Path, capsys) -> None:
    Ledger.open(RunDirectory.made(tmp_path / "good").path, planned(0))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "sweep.json").write_text("{")
    assert main(["sweep", "status", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "1 pending" in out
    assert err.startswith(f"left out: {tmp_path / 'bad' / 'sweep.json'} cannot be read")
    assert err.count("\n") == 1
    assert main(["sweep", "status", str(tmp_path / "bad")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'bad' / 'sweep.json'} cannot be read")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["train", "-m", "seed=1,2", f"paths.output_dir={tmp_path / 'file'}"]) == 2
    assert "paths.output_dir" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_sweep_belongs_to_one_process_at_a_time(tmp_path: Path, capsys) -> None:
    words = ["train", "-m", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    with locked(tmp_path):  # the same command, given twice in the same second
        assert main(words) == 2
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path} is being written by another process\n"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


# -- running -------------------------------------------------------------------------------------------


def sweep_words(runs, *words: str) -> list[str]:
    return ["train", "-m", *runs.words("logger=csv", "trainer.max_epochs=1", "seed=1,2", *words)]


def test_the_same_command_skips_what_is_done_and_retries_what_failed(runs, capsys, monkeypatch) -> None:
    train, calls = run.train, []

    def fails_once(config, *rest, **more):
        calls.append(config["seed"])
        if config["seed"] == 2 and len(calls) == 2:
            raise ZeroDivisionError("a defect")
        return train(config, *rest, **more)

    monkeypatch.setattr(run, "train", fails_once)
    assert main(sweep_words(runs)) == 1
    out = capsys.readouterr().out
    assert "sweep: 1 of 2 jobs done" in out
    assert "the same command again goes on from here" in out
    assert main(sweep_words(runs)) == 0
    out = capsys.readouterr().out
    assert "1 of 2 jobs are done already" in out
    assert "sweep: 2 of 2 jobs done" in out
    assert calls == [1, 2, 2]
    assert main(sweep_words(runs)) == 0
    assert calls == [1, 2, 2]

    (file,) = runs.folder.glob("**/sweep.json")
    capsys.readouterr()
    assert main(["sweep", "status", str(runs.folder)]) == 0
    status = capsys.readouterr().out
    assert [line.split()[:2] for line in status.splitlines()[2:4]] == [["0", "done"], ["1", "done"]]
    assert "seed=1" in status
    assert "2 done" in status
    assert main(["sweep", "dry", *sweep_words(runs, "seed=1,2,3")[2:]]) == 0
    dry = capsys.readouterr().out
    assert dry.count("pending") == 4  # another sweep: its folder has another name
    assert "what a job costs is known when the first is done" in dry
    assert main(["sweep", "dry", *sweep_words(runs, f"hydra.sweep.dir={file.parent}", "seed=3,1,2")[2:]]) == 0
    dry = capsys.readouterr().out
    assert [line.split()[:2] for line in dry.splitlines()[2:5]] == [["0", "done"], ["1", "done"], ["2", "pending"]]
    assert "(mean of 2)" in dry


def test_a_launcher_that_breaks_down_is_told_and_the_rest_is_launched_again(runs, capsys, monkeypatch) -> None:
    from attelbo.experiments.sweeps import running

    launch, launched = running.launch, []

    def breaks_down(hydra, root, shared, jobs, *rest):
        launched.append(len(jobs))
        if len(launched) == 1:  # as joblib does when a worker is killed
            launch(hydra, root, shared, jobs[:1], *rest)
            raise RuntimeError("A worker process was killed\nfor want of memory")
        return launch(hydra, root, shared, jobs, *rest)

    monkeypatch.setattr(running, "launch", breaks_down)
    assert main(sweep_words(runs, "seed=1,2,3")) == 0
    captured = capsys.readouterr()
    assert launched == [3, 2]
    assert "the launcher broke down: RuntimeError: A worker process was killed" in captured.err
    assert "sweep: 3 of 3 jobs done" in captured.out


def test_a_sweep_killed_at_any_moment_ends_as_if_it_had_not_been(runs, tmp_path) -> None:
    words = runs.words("logger=csv", "trainer.max_epochs=3", "seed=1,2", "callbacks=checkpoint")
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def sweep(folder: Path) -> list[str]:
        given = [word for word in words if not word.startswith("paths.output_dir=")]
        return ["train", "-m", *given, f"paths.output_dir={folder}"]

    assert main(sweep(whole)) == 0
    process = command(sweep(killed), tmp_path / "output")
    while not list(killed.glob("**/last.ckpt")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.written()
    assert main(sweep(killed)) == 0
    results = [
        {path.parent.name: RunDirectory(path.parent).read("result.json") for path in folder.glob("**/result.json")}
        for folder in (whole, killed)
    ]
    assert len(results[0]) == 2
    assert {name: result["metrics"] for name, result in results[0].items() if result} == {
        name: result["metrics"] for name, result in results[1].items() if result
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "nowhere"], "sweep status: nowhere: no such folder"),
        (["list"], "sweep list: no such command"),
        (["dry", "model.latnet_dim=2,4"], "model.latnet_dim (command line): unknown key"),
        (["dry", "model.latent_dim=2,0"], "model.latent_dim must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_one_line(words, message, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
