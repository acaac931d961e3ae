"""Sweeps and one training over two machines on a real Slurm: ``make test-slurm`` installs, starts and stops it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.sweeps.ledger import Ledger

pytestmark = pytest.mark.slurm

CLUSTER = Path(__file__).parent / "cluster"
DOCS = Path(__file__).parents[2] / "docs" / "clusters.md"
LAUNCHER = ("hydra/launcher=slurm", "hydra.launcher.mem=1")
ATTELBO = (sys.executable, "-m", "attelbo")


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    """Two nodes, for as long as the tests run."""
    if shutil.which("slurmctld") is None:
        pytest.fail("Slurm is not installed: make test-slurm")
    folder = Path(tempfile.mkdtemp(prefix="attelbo-slurm-"))
    folder.chmod(0o755)  # munged and the database are other users
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        subprocess.run([CLUSTER, "start", folder], check=True, timeout=300)
        yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=300)
        shutil.rmtree(folder)


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def until(true: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.2)
    return found


def begin_again() -> None:
    """Let a job that was put back begin now; by itself Slurm would wait for two minutes."""
    (number,) = until(
        lambda: said("squeue", "--noheader", "--partition=work", "--states=PENDING", "--format=%i").split()
    )
    time.sleep(5)  # if it began in the same second, Slurm would take it for the one that has ended
    said("scontrol", "update", f"jobid={number}", "StartTime=now")


def training(folder: Path, seed: int) -> RunDirectory | None:
    """The directory of a run that has trained for a while, and trains."""
    for file in folder.glob("**/metrics.csv"):
        run = RunDirectory(file.parent)
        trains = run.status()["state"] == "running" and run.resumable and file.read_text().count("val/elbo") > 1
        if trains and f"seed: {seed}\n" in (run.path / "config.yaml").read_text():
            return run
    return None


class Command:
    """A sweep on the cluster, in its own process."""

    def __init__(self, runs: Any, *words: str) -> None:
        small = runs.words("trainer.threads=1", "logger=csv", *words)
        self.folder = runs.folder
        self.process = subprocess.Popen(
            [*ATTELBO, "train", "-m", *small, *LAUNCHER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def training(self, seed: int) -> RunDirectory | None:
        return training(self.folder, seed)

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=600)
        return self.process.returncode, output

    @property
    def ledger(self) -> Ledger:
        (file,) = self.folder.glob("**/sweep.json")
        ledger = Ledger.read(file.parent)
        assert ledger is not None
        return ledger


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_sweep_of_four_jobs_is_an_array_and_a_job_that_is_killed_takes_none_along(runs) -> None:
    sweep = Command(runs, "seed=1,2,3,4", "trainer.max_epochs=300")
    killed = until(lambda: sweep.training(1))
    queued = said("squeue", "--noheader", "--array", "--format=%i").split()
    assert {number.partition("_")[2] for number in queued} <= {"0", "1", "2", "3"}
    os.kill(killed.status()["pid"], signal.SIGKILL)
    code, output = sweep.end()
    assert code == 1, output
    assert "sweep: 3 of 4 jobs done" in output
    assert sorted(map(sweep.ledger.state, sweep.ledger.jobs)) == ["done", "done", "done", "killed"]
    until(lambda: said("sacct", "--noheader", "--allocations", "--format=State").split().count("COMPLETED") >= 3)
    again = Command(runs, "seed=1,2,3,4", "trainer.max_epochs=300")
    code, output = again.end()
    assert code == 0, output
    assert "3 of 4 jobs are done already" in output
    assert "sweep: 4 of 4 jobs done" in output
    assert killed.status()["attempts"] == 2


def test_a_preempted_job_is_put_back_and_ends_bit_for_bit(runs) -> None:
    sweep = Command(runs, "seed=1", "trainer.max_epochs=300")
    run = until(lambda: sweep.training(1))
    subprocess.run(["sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=true"], check=True)
    until(lambda: run.status()["state"] == "interrupted")
    begin_again()
    until(lambda: run.status()["attempts"] == 2)
    code, output = sweep.end()
    assert code == 0, output
    assert run.status()["state"] == "done"
    assert "stopped by SIGTERM" in (run.path / "train.log").read_text()
    plain = runs.train("trainer.threads=1", "logger=csv", "seed=1", "trainer.max_epochs=300")
    assert_same_weights(run.path, plain.run_dir)


def test_a_sweep_whose_command_dies_goes_on_and_the_same_command_finds_its_jobs(runs) -> None:
    sweep = Command(runs, "seed=1,2", "trainer.max_epochs=300")
    until(lambda: sweep.training(1))
    sweep.process.kill()
    sweep.end()
    before = said("squeue", "--noheader", "--array", "--format=%i")
    again = Command(runs, "seed=1,2", "trainer.max_epochs=300")
    code, output = again.end()
    assert code == 0, output
    assert {again.ledger.directory(job).status()["attempts"] for job in again.ledger.jobs} == {1}
    numbers = said("sacct", "--noheader", "--allocations", "--format=JobID").split()
    assert set(before.split()) <= set(numbers)
    assert len([number for number in numbers if number > max(before.split())]) == 0


def test_ctrl_c_stops_the_jobs_with_a_checkpoint_and_empties_the_queue(runs) -> None:
    sweep = Command(runs, "seed=1,2,3", "trainer.max_epochs=3000")
    until(lambda: sweep.training(1))
    sweep.process.send_signal(signal.SIGINT)
    code, output = sweep.end()
    assert code == 130, output
    states = [sweep.ledger.state(job) for job in sweep.ledger.jobs]
    assert "interrupted" in states
    assert states[2] == "pending"
    assert not {"done", "running"} & set(states)
    until(lambda: not said("squeue", "--noheader").strip())


def test_one_training_over_two_machines_goes_on_after_it_was_put_back(runs, tmp_path) -> None:
    """By the script of docs/clusters.md; it ends with the weights that two processes of this machine end with."""
    given = runs.words("trainer.accelerator=cpu", "trainer.threads=1", "trainer.max_epochs=300", "logger=csv", "seed=1")
    words = " ".join(shlex.quote(word) for word in given)
    script = DOCS.read_text(encoding="utf-8").partition("<!-- tests/slurm runs this script -->\n```bash\n")[2]
    script = script.partition("```")[0]
    for told, instead in (
        (" --gpus-per-node=4 --cpus-per-task=8", ""),
        ("--ntasks-per-node=4", "--ntasks-per-node=1"),
        ("trainer.devices=4", f"trainer.devices=1 {words}"),
        (" attelbo train", f" {shlex.join(ATTELBO)} train"),
    ):
        assert told in script
        script = script.replace(told, instead)
    (tmp_path / "job").write_text(script)
    number = said("sbatch", "--parsable", f"--output={tmp_path / 'output'}", str(tmp_path / "job")).strip()
    run = until(lambda: training(runs.folder, 1))
    subprocess.run(["scancel", "--signal=USR2", number], check=True)
    until(lambda: run.status()["state"] == "interrupted")
    begin_again()
    until(lambda: run.status()["attempts"] == 2)
    until(lambda: not said("squeue", "--noheader").strip())
    assert run.status()["state"] == "done", (tmp_path / "output").read_text()
    assert list(run.path.parent.iterdir()) == [run.path]  # one directory, one result
    assert (tmp_path / "output").read_text().count("NLL") == 1
    here = runs.words(
        *("trainer=ddp_cpu", "trainer.max_epochs=300", "logger=csv", "seed=1"), f"paths.output_dir={tmp_path / 'here'}"
    )
    subprocess.run([*ATTELBO, "train", *here], check=True, timeout=300)
    (other,) = (tmp_path / "here").glob("**/result.json")
    assert_same_weights(run.path, other.parent)
