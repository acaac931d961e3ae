"""Searches: where they look, what they choose, and that a kill at any moment changes nothing."""

import contextlib
import copy
import dataclasses
import json
import math
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
import yaml

from attelbo.cli import main
from attelbo.errors import ConfigError, UserError
from attelbo.experiments import configuration
from attelbo.experiments.comparison.runs import find_runs
from attelbo.experiments.composing import is_task_word, session
from attelbo.experiments.listing import choices, package_folder
from attelbo.experiments.rundir import RunDirectory, locked
from attelbo.experiments.sweeps import searching, showing, study
from attelbo.experiments.sweeps.expanding import latest
from attelbo.experiments.sweeps.ledger import Ledger
from attelbo.experiments.sweeps.space import Parameter, point, size_of, space_of
from attelbo.experiments.sweeps.specification import read
from attelbo.experiments.sweeps.study import Study, storage_of
from attelbo.training.callbacks import Pruning

LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"

# -- the space -----------------------------------------------------------------------------------------


def test_where_to_look_is_said_in_hydras_words() -> None:
    words = ["a=1", "b=[1,2],[3]", "c=int(interval(2,32))", "d=range(2,33,10)", LR, "e=tag(log,int(interval(1,8)))"]
    found = {parameter.key: parameter for parameter in space_of(words)}
    assert list(found) == ["b", "c", "d", "optimizer.lr", "e"]
    assert found["b"].choices == ("[1,2]", "[3]")
    assert [found[key].size for key in "bcde"] == [2, 31, 4, 8]
    assert [found["d"].at(u) for u in (0, 0.3, 0.6, 0.999)] == [2, 12, 22, 32]
    assert found["optimizer.lr"].at(0.5) == pytest.approx(math.sqrt(1e-4 * 1e-1))
    assert size_of([found["b"], found["c"]]) == 62
    for parameter in found.values():
        word = parameter.word_of(parameter.at(0.371))
        assert parameter.word_of(parameter.value(word.partition("=")[2])) == word
        assert parameter.distribution()._contains(
            parameter.distribution().to_internal_repr(parameter.value(word.partition("=")[2]))
        )


def test_whole_numbers_on_a_logarithmic_scale_are_as_likely_as_their_intervals_are_long() -> None:
    parameter = Parameter("k", "", low=1, high=8, whole=True, log=True)
    n = 20_000
    counts = Counter(parameter.at((i + 0.5) / n) for i in range(n))
    for k in range(1, 9):
        assert counts[k] / n == pytest.approx(math.log((k + 0.5) / (k - 0.5)) / math.log(8.5 / 0.5), abs=2 / n)


def test_points_are_functions_of_their_number() -> None:
    space = space_of(["x=interval(0,1)", "y=interval(0,1)"])
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=3).draw(8, dtype=torch.float64).tolist()
    points = [point(space, "quasi_random", 3, index) for index in range(8)]
    assert [list(each.values()) for each in points if each] == sobol
    drawn = [point(space, "random", 3, index) for index in range(400)]
    assert drawn[7] == point(space, "random", 3, 7) != point(space, "random", 4, 7)
    assert statistics.fmean(each["x"] for each in drawn if each) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 400))
    grid = space_of(["x=a,b", "y=range(3)"])
    assert [tuple(each.values()) for i in range(6) if (each := point(grid, "grid", 0, i))] == [
        (x, y) for x in "ab" for y in range(3)
    ]
    assert point(grid, "grid", 0, 6) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=optimizr"], "sweep=optimizr (command line): no such choice; did you mean optimizer?"),
        (["sweep=optimizer", "sweep.n_trails=3"], "sweep.n_trails (command line): unknown key; did you mean sweep.n_t"),
        (["sweep=optimizer", "sweep.n_trials=0"], "sweep.n_trials must be at least 1, got 0 [conf/sweep/optimizer.yam"),
        (["sweep=optimizer", "sweep.sampler=tpa"], "did you mean tpe?"),
        (["sweep.sampler=tpe", "sweep.metric=val/loss"], "sweep.metric and direction go together"),
        (["sweep.sampler=tpe", "sweep.metric=nll", "sweep.direction=minimize"], "must be one of validation, val/..."),
        (["sweep.sampler=tpe"], "sweep.sampler: there is nothing to search for"),
        (
            ["sweep.sampler=grid", LR],
            "sweep.sampler=grid: optimizer.lr=tag(log,interval(1e-4,1e-1)): a grid is made of",
        ),
        (["sweep.sampler=tpe", "optimizer.lr=interval(1,0)"], "interval(1,0) must be finite and grow"),
        (["sweep.sampler=tpe", "optimizer.lr=interval(1,inf)"], "interval(1,inf) must be finite and grow"),
        (["sweep.sampler=tpe", "optimizer.lr=tag(lgo,interval(1,2))"], "the only tag is log, around interval(low,high"),
        (["sweep.sampler=tpe", "seed=tag(log,range(1,9))"], "seed (command line): tag(log,range(1,9)): the only tag"),
        (["sweep.sampler=tpe", "seed=range(1,9,0)"], "start, stop and step are finite, and step is not 0"),
        (["sweep.sampler=tpe", "optimizer.lr=range(0.1,0.9,1e-9)"], "800,000,000 jobs, more than the 10,000 that one"),
        (["sweep.sampler=tpe", "optimizer.ler=interval(0,1)"], "optimizer.ler (command line): unknown key"),
        (["sweep.sampler=tpe", "model/prior=standard_normal,vamb"], "model/prior=vamb (command line): no such choice"),
        (["sweep.sampler=tpe", LR, "zip:seed=1,2"], "zip:seed=1,2 (command line): zipped lists are no space to search"),
        (["sweep.sampler=tpe", LR, "logger=none"], "logger: a search reads metrics.csv"),
        (["sweep.sampler=tpe", LR, "trainer.replicas=2"], "trainer.replicas: the jobs of a search"),
        ([LR], f"{LR} (command line): an interval is for a search: add sweep.sampler=tpe"),
    ],
)
def test_what_is_wrong_with_a_search_is_one_line(words, message, capsys, tmp_path) -> None:
    assert main(["train", "-m", *words, f"paths.output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", choices([package_folder()])["sweep"])
def test_every_file_of_a_sweep_can_be_run(name, capsys) -> None:
    assert main(["check", "-m", f"sweep={name}"]) == 0
    n_jobs = capsys.readouterr().out.count("ok: ")
    assert n_jobs == {"length_extrapolation": 6, "seeds": 5, "sizes": 3}.get(name, 1)


def test_a_file_that_is_wrong_is_one_line(capsys, tmp_path) -> None:
    (tmp_path / "sweep").mkdir()
    for content, message in (
        ("sampler: [", "sweep/mine.yaml, line "),
        ("- a", "a mapping is expected at the top"),
        ("warmpu: 3", "sweep.warmpu ("),
        ("words: seed", "sweep.words ("),
    ):
        (tmp_path / "sweep/mine.yaml").write_text(f"# Mine\n{content}\n")
        assert main(["check", "-m", "sweep=mine", "--config-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["check", "sweep=seeds"]) == 2
    assert "sweep=seeds (command line): a sweep is many runs: add -m" in capsys.readouterr().err


# -- which jobs, with a training that takes no time ----------------------------------------------------


class Killed(BaseException):
    """Ends the command as SIGKILL would, but for what `finally` does."""


@pytest.fixture(autouse=True, scope="module")
def hydra():
    """One session for all: nothing is composed twice."""
    with session() as hydra:
        yield hydra


@pytest.fixture(scope="module")
def base(hydra):
    return configuration.compose("train", ["hydra.sweep.dir=search"])


@pytest.fixture
def searches(hydra, base, monkeypatch, tmp_path):
    """Searches whose jobs only write down how good they are: best at a learning rate of 0.01."""
    monkeypatch.chdir(tmp_path)
    trained: list[tuple[str, float]] = []

    def launch(hydra, root, shared, ledger, jobs, task):
        for job in jobs:
            train(ledger.directory(job), float(job.words[-1].partition("=")[2]))
        return 0

    def train(directory, rate):
        directory.path.mkdir(exist_ok=True)
        trained.append((directory.path.name, rate))
        if len(trained) in fixture.fail:
            directory.write("status.json", {"state": "failed", "train_seconds": 0.0})
            return
        values = [-abs(math.log10(rate) + 2) * (1 + 1 / epoch) for epoch in (1, 2, 3)]
        rows = [f"{epoch},{epoch},val/elbo,{value}" for epoch, value in enumerate(values)]
        (directory.path / "metrics.csv").write_text("\n".join(["step,epoch,metric,value", *rows, ""]))
        directory.write("result.json", {"seconds": {"train": 1.0}, "metrics": {}})
        directory.write("status.json", {"state": "done", "train_seconds": 1.0})

    def compose(root, words, config_dir=None):
        config = copy.deepcopy(base.config)
        for word in filter(is_task_word, words):
            key, _, value = word.partition("=")
            group, _, key = key.rpartition(".")
            (config[group] if group else config)[key] = yaml.safe_load(value)
        return dataclasses.replace(base, config=config, overrides=list(words))

    def run(folder: str, *words: str) -> int:
        search = searching.Search.of("train", read(latest(["seed=0", "data.batch_size=16,32", LR], words)))
        return searching.run(hydra, search, Path(folder), [], lambda config: 0)

    def jobs(folder: str) -> list[str]:
        ledger = Ledger.read(Path(folder))
        assert ledger is not None
        assert [job.number for job in ledger.jobs] == list(range(len(ledger.jobs)))
        return [job.hash for job in ledger.jobs]

    monkeypatch.setattr(searching, "launch_all", launch)
    monkeypatch.setattr(searching, "compose", compose)  # Hydra takes a fifth of a second for it
    monkeypatch.setattr(searching, "check", lambda composition: None)
    fixture = SimpleNamespace(run=run, jobs=jobs, trained=trained, fail=())
    return fixture


@pytest.mark.parametrize(("sampler", "concurrent"), [("tpe", 3), ("quasi_random", 2)])
def test_a_search_killed_at_any_moment_chooses_the_same_jobs(searches, monkeypatch, sampler, concurrent) -> None:
    words = (f"sweep.sampler={sampler}", f"sweep.concurrent={concurrent}", "sweep.n_trials=12")
    assert searches.run("whole", *words) == 0
    whole, n_trained = searches.jobs("whole"), len(searches.trained)
    assert len(whole) == len(set(whole)) == 12
    moments, attempts = random.Random(sampler + str(concurrent)), 0
    with monkeypatch.context() as patch:
        for place, name in ((Study, "propose"), (Study, "catch_up"), (Ledger, "open"), (searching, "launch_all")):
            function = getattr(place, name)

            def dies(*arguments, function=function, **named):
                if moments.random() < 0.05:
                    raise Killed
                result = function(*arguments, **named)
                if moments.random() < 0.05:
                    raise Killed
                return result

            patch.setattr(place, name, staticmethod(dies) if name == "open" else dies)
        done = False
        while not done:
            attempts += 1
            with contextlib.suppress(Killed):
                done = searches.run("killed", *words) == 0
    assert attempts > 1
    assert searches.jobs("killed") == whole
    assert Counter(name for name, _ in searches.trained[n_trained:]) == Counter(whole)
    study = optuna.load_study(study_name="search", storage=storage_of(Path("killed/search.db")))
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert [trial.user_attrs["job"] for trial in complete] == whole
    assert all(trial.state.is_finished() for trial in study.trials)


def test_the_study_knows_what_became_of_the_jobs(searches) -> None:
    assert searches.run("search", "sweep.sampler=random", "sweep.n_trials=5") == 0
    study = optuna.load_study(study_name="search", storage=storage_of(Path("search/search.db")))
    rates = dict(searches.trained)
    assert [trial.user_attrs["job"] for trial in study.trials] == list(rates)
    for trial in study.trials:
        rate = rates[trial.user_attrs["job"]]
        assert trial.params["optimizer.lr"] == pytest.approx(rate, rel=1e-5)
        assert trial.value == pytest.approx(-abs(math.log10(rate) + 2) * 4 / 3)  # the best of its validations
    assert study.best_trial.user_attrs["job"] == min(rates, key=lambda name: abs(math.log10(rates[name]) + 2))


@pytest.mark.parametrize("name", ["what?", "50%20", "a#b", "{lr}", "{SCHEMA_VERSION}", "é &=:"])
def test_the_study_is_in_its_directory_whatever_the_name(tmp_path, name) -> None:
    (tmp_path / name).mkdir()
    Study(tmp_path / name, {"direction": "maximize"})
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.db")] == [Path(name, "search.db")]


def test_no_trial_is_there_twice_and_a_small_space_is_exhausted(searches, capsys) -> None:
    for sampler in ("random", "tpe", "grid"):
        assert searches.run(sampler, "optimizer.lr=1e-3,1e-2", f"sweep.sampler={sampler}") == 0
        assert len(searches.jobs(sampler)) == 4
        assert "these 4 jobs are all that were found in the space" in capsys.readouterr().out
    assert len(searches.trained) == 12


def test_a_search_may_grow_but_not_change(searches, capsys) -> None:
    assert searches.run("search", "sweep.sampler=random", "sweep.n_trials=2") == 0
    before = searches.jobs("search")
    assert searches.run("search", "sweep.sampler=random", "sweep.n_trials=3") == 0
    assert searches.jobs("search")[:2] == before
    content = Path("search/sweep.json").read_bytes()
    there = r"search is another sweep: data.seed 0 there, 3 here; sampler random there, quasi_random here;"
    with pytest.raises(ConfigError, match=there):
        searches.run("search", "sweep.sampler=quasi_random", "data.seed=3")
    with pytest.raises(ConfigError, match="search is another sweep: one of the two is a search"):
        Ledger.open(Path("search"), [("a", ["seed=1"])])
    assert Path("search/sweep.json").read_bytes() == content
    with locked(Path("search")), pytest.raises(UserError, match="search is being written by another process"):
        searches.run("search", "sweep.sampler=random", "sweep.n_trials=4")


def test_failed_jobs_are_told_and_tried_again_and_a_lost_study_is_made_anew(searches, capsys) -> None:
    searches.fail = (2,)
    assert searches.run("search", "sweep.sampler=tpe", "sweep.n_trials=3") == 1
    out = capsys.readouterr().out
    assert "2 done, 1 failed" in out
    assert "the same command again goes on from here" in out
    assert searches.run("search", "sweep.sampler=tpe", "sweep.n_trials=4") == 0
    study = optuna.load_study(study_name="search", storage=storage_of(Path("search/search.db")))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    again, failed = study.trials[3].params, study.trials[1].params
    assert again == {**failed, "optimizer.lr": pytest.approx(failed["optimizer.lr"], rel=1e-5)}
    Path("search/search.db").rename("old.db")
    assert searches.run("search", "sweep.sampler=tpe", "sweep.n_trials=5") == 0
    study = optuna.load_study(study_name="search", storage=storage_of(Path("search/search.db")))
    assert [trial.user_attrs["job"] for trial in study.trials] == searches.jobs("search")
    Path("search/search.db").rename("older.db")
    Path("search/search.db").write_text("no database")
    remedy = "; move it away, and the same command makes it anew from the jobs that are done$"
    with pytest.raises(UserError, match=rf"search\.db cannot be used: file is not a database{remedy}"):
        searches.run("search", "sweep.sampler=tpe", "sweep.n_trials=6")
    capsys.readouterr()
    showing.status([Path("search")])
    out, err = capsys.readouterr()
    assert "5 done" in out
    assert err.startswith("search/search.db cannot be used: file is not a database")
    assert err.count("\n") == 1


def study_of_another_version(file: Path) -> None:
    Study(file.parent, {"direction": "minimize"})
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("update alembic_version set version_num='v9.9.9'")
        database.execute("update version_info set schema_version=99")


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (study_of_another_version, "it is of another version of Optuna; move it away, and the same command makes it"),
        (lambda file: Study(file.parent, {"direction": "maximize"}), "it is of another search, which is to maximize"),
    ],
)
def test_a_study_of_something_else_is_one_line(tmp_path: Path, prepare, told) -> None:
    prepare(tmp_path / "search.db")
    with pytest.raises(UserError, match=rf"search\.db cannot be used: {told}"):
        Study(tmp_path, {"direction": "minimize"})


def test_a_study_that_another_program_holds_is_not_to_be_moved_away(tmp_path: Path, monkeypatch) -> None:
    Study(tmp_path, {"direction": "minimize"})
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, timeout: connect(file, timeout=0.1))
    with contextlib.closing(connect(tmp_path / "search.db")) as held:
        held.execute("begin exclusive")
        with pytest.raises(UserError, match=r"search\.db cannot be used: .*database is locked$"):
            Study(tmp_path, {"direction": "minimize"})


def test_status_and_dry_show_the_best_and_what_matters(searches, capsys, monkeypatch) -> None:
    assert searches.run("search", "sweep.sampler=random", "sweep.n_trials=12") == 0
    best = max(searches.trained, key=lambda each: -abs(math.log10(each[1]) + 2))
    capsys.readouterr()
    with monkeypatch.context() as patch:  # in a folder that is read-only
        patch.setattr(study, "storage_of", lambda file: storage_of(Path(f"file:{file}?mode=ro")))
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, uri=True))
        assert main(["sweep", "status", "search"]) == 0
    status = capsys.readouterr().out
    (line,) = [line for line in status.splitlines() if line.startswith("best val/elbo")]
    assert line.endswith(f"[search/{best[0]}]")
    (line,) = [line for line in status.splitlines() if line.startswith("of what makes a job good: ")]
    assert line.startswith("of what makes a job good: optimizer.lr ")
    words = ["hydra.sweep.dir=search", "seed=0", "data.batch_size=16,32", LR, "sweep.sampler=random"]
    assert main(["sweep", "dry", *words]) == 0
    assert "12 done, 8 to be chosen; about 0.1 min of work left, at 1.0 s a job (mean of 12)" in capsys.readouterr().out


# -- pruning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_median_is_that_of_the_others_at_the_same_validation(direction) -> None:
    draw = random.Random(0)
    others = [[draw.gauss(0, 1) for _ in range(draw.randint(2, 6))] for _ in range(9)]
    own = [draw.gauss(0, 1) for _ in range(6)]
    better = min if direction == "minimize" else max
    callback = Pruning("val/loss", direction, "median", 2, [(curve, False) for curve in others])
    for step, value in enumerate(own, 1):
        so_far, there = better(own[:step]), [curve[step - 1] for curve in others if len(curve) >= step]
        median = statistics.median(there) if there else so_far
        worse = so_far > median if direction == "minimize" else so_far < median
        assert callback.is_bad(value) == (worse and step >= 2)


def test_of_those_that_come_to_a_rung_the_best_quarter_goes_on() -> None:
    others = [([float(i), float(i)], False) for i in range(7)]
    for value, worst in ((6.5, False), (4.5, True)):
        callback = Pruning("val/elbo", "maximize", "successive_halving", 2, others)
        assert not callback.is_bad(value)
        assert callback.is_bad(value) == worst


def test_who_goes_on_decides_as_if_it_had_not_been_interrupted() -> None:
    draw = random.Random(1)
    others = [([draw.random() for _ in range(20)], i % 3 == 0) for i in range(12)]
    own = [draw.random() for _ in range(20)]
    for pruner in ("median", "successive_halving"):
        whole = Pruning("m", "minimize", pruner, 1, others)
        decisions = [whole.is_bad(value) for value in own]
        resumed = Pruning("m", "minimize", pruner, 1, others, own[:7])
        assert [resumed.is_bad(value) for value in own[7:]] == decisions[7:]


def test_a_run_worse_than_the_others_is_stopped_and_is_no_failure(runs, capsys) -> None:
    sweep = runs.folder / "search"
    others = [f"other{i}" for i in range(5)]
    for i, name in enumerate(others):
        (sweep / name).mkdir(parents=True)
        (sweep / name / "metrics.csv").write_text(f"step,epoch,metric,value\n10,0,val/elbo,-90\n20,1,val/elbo,{i}\n")
    told = {"metric": "val/elbo", "direction": "maximize", "pruner": "median", "warmup": 1, "others": others}
    words = ("logger=csv", "trainer.max_epochs=4")
    directory = RunDirectory.job(sweep, runs.configure(*words))
    directory.write("pruning.json", told | {"warmup": -1})
    with pytest.raises(UserError, match=r"pruning\.json cannot be read: its warmup must be greater than or equal to 0"):
        runs.train(*words, sweep=sweep)
    directory.write("pruning.json", told)
    outcome = runs.train(*words, sweep=sweep)
    assert (outcome.state, outcome.exit_code) == ("pruned", 0)
    assert outcome.run_dir == directory.path
    status = directory.status()
    assert status["state"] == "pruned"
    assert "error" not in status
    assert directory.read("result.json") is None
    assert (directory.path / "report.html").is_file()
    curve = [line for line in (directory.path / "metrics.csv").read_text().splitlines() if "val/elbo" in line]
    assert len(curve) == 2  # the first beats -90, the second is worse than the median of 0, ..., 4
    found = find_runs([str(sweep)])
    assert [each.state for each in found.unfinished] == ["pruned"]
    attempts = status["attempts"]
    assert runs.train(*words, sweep=sweep).state == "pruned"
    assert directory.status()["attempts"] == attempts
    assert "is pruned already" in capsys.readouterr().out


def test_what_an_attempt_without_a_checkpoint_logged_is_forgotten(runs) -> None:
    sweep = runs.folder / "sweep"
    words = ("logger=csv", "trainer.max_epochs=1", "callbacks=none")
    directory = RunDirectory.job(sweep, runs.configure(*words))
    (directory.path / "metrics.csv").write_text("step,epoch,metric,value\n999,99,val/elbo,1.0\n")
    assert runs.train(*words, sweep=sweep).state == "done"
    assert "\n999," not in (directory.path / "metrics.csv").read_text()


# -- for real ------------------------------------------------------------------------------------------


def real(runs, folder: Path, *words: str) -> list[str]:
    given = runs.words(
        "logger=csv", "trainer.max_epochs=3", "callbacks=checkpoint", LR, "data.batch_size=10,20", *words
    )
    return ["train", "-m", *(w for w in given if not w.startswith("paths.output_dir=")), f"paths.output_dir={folder}"]


def table(folder: Path) -> dict[str, object]:
    return {
        path.parent.name: (RunDirectory(path.parent).status()["state"], RunDirectory(path.parent).read("result.json"))
        for path in folder.glob("**/status.json")
    }


@pytest.mark.slow
@pytest.mark.parametrize("more", [("sweep.pruner=median",), ("hydra/launcher=joblib", "sweep.concurrent=2")])
def test_a_search_killed_again_and_again_ends_as_if_it_had_not_been(runs, tmp_path, more) -> None:
    words = ("sweep.sampler=tpe", "sweep.n_trials=12", *more)
    command = [sys.executable, "-m", "attelbo"]
    subprocess.run([*command, *real(runs, tmp_path / "whole", *words)], check=True, capture_output=True, timeout=900)
    draw = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [*command, *real(runs, tmp_path / "killed", *words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        n = len(list((tmp_path / "killed").glob("**/status.json"))) + draw.randint(1, 4)
        begun = time.monotonic()
        while len(list((tmp_path / "killed").glob("**/status.json"))) < n and time.monotonic() < begun + 300:
            time.sleep(draw.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, *real(runs, tmp_path / "killed", *words)], check=True, capture_output=True, timeout=900)
    whole, killed = table(tmp_path / "whole"), table(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    for name, (state, result) in whole.items():
        assert killed[name][0] == state
        if result:
            assert killed[name][1]["metrics"] == result["metrics"]
    ledgers = [json.loads(next(tmp_path.glob(f"{name}/**/sweep.json")).read_text()) for name in ("whole", "killed")]
    assert [job["hash"] for job in ledgers[0]["jobs"]] == [job["hash"] for job in ledgers[1]["jobs"]]
