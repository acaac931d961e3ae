"""Launchers that run jobs in other processes: what each job may use, how they end, that a stopped one goes on."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus

from attelbo.cli import main
from attelbo.errors import ConfigError
from attelbo.experiments.composing import session
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.sweeps import logs
from attelbo.experiments.sweeps.launchers import joblib
from attelbo.experiments.sweeps.launchers import slots as rooms
from attelbo.experiments.sweeps.launchers.base import Elsewhere
from attelbo.experiments.sweeps.launchers.slots import slots, slots_here
from attelbo.experiments.sweeps.launching import launch

# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jbos=2"],
            "hydra.launcher.n_jbos (command line): unknown key; did you mean hydra.launcher.n_jobs? "
            "[conf/hydra/launcher/joblib.yaml]",
        ),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be at least 1, got 0"),
        (["hydra/launcher=joblib", "hydra.launcher.gpus=all"], "hydra.launcher.gpus (command line): expected int"),
        (["hydra/launcher=slurm", "hydra.launcher.time=2h"], "hydra.launcher.time (command line): expected int"),
        (["hydra/launcher=slurm", "hydra.launcher.mem=0"], "hydra.launcher.mem must be above 0, got 0"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.notice=3600"],
            "hydra.launcher.notice must be less than the time, 3600 s, got 3600",
        ),
        (["hydra/launcher=submitit_local", "hydra.launcher.requeue=6"], "hydra.launcher.requeue must be at most 5"),
    ],
)
def test_what_is_wrong_with_a_launcher_is_one_line(words, message, capsys) -> None:
    assert main(["check", "-m", "seed=1,2", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_launchers_are_listed(capsys) -> None:
    assert main(["list", "hydra/launcher"]) == 0
    listed = capsys.readouterr().out.splitlines()
    names = [line.split()[0].removeprefix("hydra/launcher=") for line in listed]
    assert names == ["basic", "joblib", "slurm", "submitit_local"]
    assert all(len(line.split()) > 3 for line in listed)


# -- what a job may use --------------------------------------------------------------------------------


def devices_of(given: Sequence[Mapping[str, str]]) -> list[str | None]:
    return [slot.get("CUDA_VISIBLE_DEVICES") for slot in given]


def test_cores_are_shared_and_each_job_has_gpus_of_its_own() -> None:
    assert slots(None, 1, [], cores=8) == [{"OMP_NUM_THREADS": "1"}] * 8
    assert slots(3, 1, [], cores=8) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert slots(16, 1, [], cores=8) == [{"OMP_NUM_THREADS": "1"}] * 16
    assert slots(None, 1, ["0", "GPU-7", "5"], cores=8) == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": name} for name in ("0", "GPU-7", "5")
    ]
    assert devices_of(slots(None, 2, list("01234"), cores=8)) == ["0,1", "2,3"]
    assert devices_of(slots(4, 1, list("01"), cores=8)) == ["0", "1", "0", "1"]
    assert devices_of(slots(None, 0, list("01"), cores=2)) == ["", ""]
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.gpus=3: this machine has 2$"):
        slots(None, 3, list("01"), cores=8)


def test_few_jobs_have_more_threads_and_jobs_of_the_cpu_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(rooms, "cores", lambda: 8)
    monkeypatch.setattr(rooms, "devices", lambda: ["0", "1"])
    on = {name: {"trainer": {"accelerator": name}} for name in ("cpu", "auto")}
    assert slots_here(None, 1, 2, on["cpu"]) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert devices_of(slots_here(None, 1, 9, on["auto"])) == ["0", "1"]


def test_gpus_are_those_that_this_process_may_use(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert rooms.devices() == ["GPU-a", "GPU-b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert rooms.devices() == ["0", "1"]
    assert 1 <= rooms.cores() <= (os.cpu_count() or 1)


# -- the loop ------------------------------------------------------------------------------------------


class Clockwork(Elsewhere):
    """Jobs that end one at each look, the last begun first; a job whose words hold a signal sends it."""

    def __init__(self, at_a_time: int) -> None:
        super().__init__()
        self.at_a_time = at_a_time
        self.events: list[tuple[str, Any]] = []

    def open(self, n_jobs: int) -> None:
        self.events.append(("open", n_jobs))

    def room(self, running: int) -> int:
        return self.at_a_time - running

    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
        self.events.append(("start", [number for number, _ in jobs]))
        for _, words in jobs:
            for word in words:
                os.kill(os.getpid(), signal.Signals[word])
        return list(jobs)

    def poll(self, running: Mapping[int, Any]) -> Iterator[tuple[int, JobReturn]]:
        place = max(running)
        yield place, JobReturn(status=JobStatus.COMPLETED, _return_value=running[place][0])

    def stop(self, running: Sequence[Any], at_once: bool) -> None:
        self.events.append(("kill" if at_once else "stop", [number for number, _ in running]))

    def close(self) -> None:
        self.events.append(("close", None))


def test_jobs_begin_while_there_is_room_and_each_is_told_when_it_ends() -> None:
    launcher, ended = Clockwork(2), []
    launcher.ended = lambda place, returned: ended.append((place, returned.return_value))
    returns = launcher.launch([[], [], [], []], 10)
    assert [each.return_value for each in returns] == [10, 11, 12, 13]
    assert launcher.events == [
        ("open", 4), ("start", [10, 11]), ("start", [12]), ("start", [13]), ("close", None),
    ]  # fmt: skip
    assert ended == [(1, 11), (2, 12), (3, 13), (0, 10)]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_is_passed_on_to_those_that_run_and_the_others_do_not_begin(name, code, capsys) -> None:
    launcher, before = Clockwork(2), signal.getsignal(signal.Signals[name])
    with pytest.raises(SystemExit) as stopped:
        launcher.launch([[], [name], [], []], 0)
    assert stopped.value.code == code
    assert launcher.events[1:] == [("start", [0, 1]), ("stop", [0]), ("close", None)]
    assert "sweep: stopped, with 1 running: saving their state" in capsys.readouterr().err
    assert signal.getsignal(signal.Signals[name]) is before


def test_a_second_signal_ends_them_at_once() -> None:
    launcher = Clockwork(3)
    poll = launcher.poll

    def patient(running: Mapping[int, Any]) -> Iterator[tuple[int, JobReturn]]:
        if ("stop", [0, 1, 2]) in launcher.events and launcher.events[-1][0] == "stop":
            os.kill(os.getpid(), signal.SIGINT)
            return
        if launcher.events[-1][0] != "start":
            yield from poll(running)

    launcher.poll = patient
    with pytest.raises(SystemExit) as stopped:
        launcher.launch([[], [], ["SIGTERM"]], 0)
    assert stopped.value.code == 143
    assert [kind for kind, _ in launcher.events] == ["open", "start", "stop", "kill", "close"]


# -- worker processes ----------------------------------------------------------------------------------


def launched(folder: Path, launcher: str, jobs: int, task: Callable[..., int], *words: str) -> list[int]:
    """Exit codes of jobs seed=0, 1, ... that run a task which is no training."""
    shared = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}", "trainer=cpu", *words]
    with session() as hydra:
        return launch(hydra, "train", shared, [[f"seed={seed}"] for seed in range(jobs)], task)


def test_a_worker_that_is_killed_takes_no_job_along_and_its_gpu_is_the_next_jobs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(joblib, "slots_here", lambda *given: slots(2, 1, ["5", "7"], cores=6))
    folder = str(tmp_path)

    def task(config: Any) -> int:
        import os
        import signal
        import time
        from pathlib import Path

        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        told = " ".join([*(os.environ[name] for name in names), str(os.getpid()), str(os.getpgid(0))])
        (Path(folder) / f"job{config.seed}").write_text(told)
        if config.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.seed == 0:  # it holds its GPU until all others have been
            while not (Path(folder) / "job3").exists():
                time.sleep(0.01)
        return int(config.seed == 2)

    assert launched(tmp_path, "joblib", 4, task) == [0, 1, 1, 0]
    told = [(tmp_path / f"job{seed}").read_text().split() for seed in range(4)]
    assert {threads for _, threads, _, _ in told} == {"3"}
    assert [device for device, *_ in told] == ["5", "7", "7", "7"]
    pids = [pid for _, _, pid, _ in told]
    assert pids[2] == pids[3]  # a worker has one job after the other, and a dead one is replaced
    assert len(set(pids)) == 3
    assert all(pid == group for _, _, pid, group in told)  # the terminal's signals are not theirs


def test_the_log_of_a_job_has_what_it_and_its_children_write(tmp_path, capfd) -> None:
    file = tmp_path / "train.log"
    for _ in range(2):
        with logs.written_to(file):
            os.write(1, b"out\n")
            os.system("echo child >&2")
    os.write(1, b"terminal\n")
    assert file.read_text() == "out\nchild\n" * 2
    assert capfd.readouterr().out == "terminal\n"
    assert logs.last_line(file) == "child"
    assert logs.last_line(tmp_path / "none") == ""


def during(runs: Any, act: Callable[[RunDirectory], None], *, epochs: int) -> threading.Thread:
    """Act on the first run that has a checkpoint and has trained for some epochs."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            for file in runs.folder.glob("**/metrics.csv"):
                run = RunDirectory(file.parent)
                if (
                    file.read_text().count("val/elbo") >= epochs
                    and run.resumable
                    and run.status()["state"] == "running"
                ):
                    act(run)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def sweep_words(runs: Any, launcher: str, *words: str) -> list[str]:
    small = runs.words("trainer.threads=1", "trainer.max_epochs=60", "seed=1,2", *words)
    return ["train", "-m", *small, f"hydra/launcher={launcher}", "hydra.launcher.n_jobs=1"]


@pytest.mark.slow
def test_a_preempted_job_is_put_back_and_goes_on_bit_for_bit(runs, capfd) -> None:
    words = sweep_words(runs, "submitit_local", "seed=1")
    thread = during(runs, lambda run: os.kill(run.status()["pid"], signal.SIGUSR2), epochs=2)
    assert main(words) == 0
    thread.join()
    (file,) = runs.folder.glob("**/result.json")
    status = RunDirectory(file.parent).status()
    assert (status["state"], status["attempts"]) == ("done", 2)
    assert f"{file.parent.name}: done" in capfd.readouterr().out
    assert "stopped by SIGUSR2" in (file.parent / logs.FILE).read_text()
    plain = runs.train("trainer.threads=1", "trainer.max_epochs=60", "seed=1")
    assert_same_weights(file.parent, plain.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_signal_to_the_sweep_stops_its_jobs_with_a_checkpoint_and_it_goes_on(launcher, runs, capfd) -> None:
    words = sweep_words(runs, launcher)
    thread = during(runs, lambda run: os.kill(os.getpid(), signal.SIGTERM), epochs=2)
    assert main(words) == 143
    thread.join()
    captured = capfd.readouterr()
    assert "sweep: stopped, with 1 running: saving their state" in captured.err
    assert "seed=1: interrupted (exit code 143): stopped by SIGTERM; ckpt=auto goes on from here" in captured.out
    assert "1 interrupted, 1 pending" in captured.out
    (ledger,) = runs.folder.glob("**/sweep.json")
    assert [job["state"] for job in json.loads(ledger.read_text())["jobs"]] == ["interrupted", "pending"]
    assert main(words) == 0
    assert "sweep: 2 of 2 jobs done" in capfd.readouterr().out
    directories = [RunDirectory(file.parent) for file in ledger.parent.glob("*/status.json")]
    (resumed,) = [each for each in directories if each.status()["attempts"] == 2]
    plain = runs.train("trainer.threads=1", "trainer.max_epochs=60", "seed=1")
    assert_same_weights(resumed.path, plain.run_dir)
