"""``hydra/launcher=slurm``: an array of jobs on a cluster, watched by ``squeue``.

Jobs live on when the command that submitted them is killed; the same command again finds those that still wait or
run, by ``.submitit/jobs.json`` in the sweep's directory, and waits for them. Accounting (``sacct``) is not needed: a
job that is no longer in the queue and has left no result was killed.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import submitit
from hydra.core.utils import JobReturn
from submitit.core.utils import FailedJobError

from attelbo.checks import check_at_least
from attelbo.errors import UserError
from attelbo.experiments.sweeps.launchers.base import POLL_S
from attelbo.experiments.sweeps.launchers.submitit import STOPPED, Job, Submitted
from attelbo.files import write_atomically

ASK_S = 5.0
"""Seconds between two queries of the scheduler."""
PATIENCE = 3
"""Answers in which a job is missing before it is given up: its result may be late on a shared disk."""


class SlurmJob(Job):
    """A job that is requeued when it was preempted, which Slurm signals by SIGTERM too."""

    def goes_on(self, code: int | None) -> bool:
        if code == STOPPED + signal.SIGTERM:
            return states([submitit.JobEnvironment().job_id]).get(submitit.JobEnvironment().job_id) == "RUNNING"
        return super().goes_on(code)


class Slurm(Submitted):
    """Jobs on a cluster.

    Args:
        n_jobs: jobs at a time, at most.
        partition: None, here and below: the cluster's default.
        account: the account that is charged.
        qos: quality of service.
        constraint: features of the machines.
        nodes: machines of each job.
        tasks: processes on each of them.
        cpus: cores of each process, and its threads.
        gpus: GPUs on each machine.
        mem: GB on each machine.
        time: minutes, after which a job is stopped.
        notice: seconds before that at which it is signalled.
        requeue: how often it is then put back in the queue.
        setup: shell commands before the job.
        options: any other options of sbatch.

    Raises:
        ValueError: a number is out of range.
    """

    job_class = SlurmJob

    def __init__(
        self,
        n_jobs: int = 256,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        nodes: int = 1,
        tasks: int = 1,
        cpus: int = 1,
        gpus: int = 0,
        mem: float = 8,
        time: int = 60,
        notice: int = 120,
        requeue: int = 20,
        setup: Sequence[str] = (),
        options: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        super().__init__(n_jobs, time, notice, requeue)
        check_at_least(1, nodes=nodes, tasks=tasks, cpus=cpus)
        check_at_least(0, gpus=gpus)
        if mem <= 0:
            raise ValueError(f"mem must be above 0, got {mem}")
        self.nodes, self.tasks, self.cpus = nodes, tasks, cpus
        self._resources: dict[str, Any] = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "constraint": constraint,
            "nodes": nodes,
            "ntasks_per_node": tasks,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus or None,
            "mem": f"{round(mem * 1024)}M",
            "time": time,
            "signal_delay_s": notice,
            "array_parallelism": n_jobs,
            "setup": list(setup) or None,
            "srun_args": ["--kill-on-bad-exit=0"] if nodes * tasks > 1 else None,
            "additional_parameters": {"requeue": True, **(options or {})},
        }

    def open(self, n_jobs: int) -> None:
        if shutil.which("sbatch") is None or shutil.which("squeue") is None:
            raise UserError("hydra/launcher=slurm: there is no sbatch here; give the command on a cluster's machine")
        self._executor = submitit.SlurmExecutor(self.files / "%j", max_num_timeout=self.requeue)
        self._executor.update_parameters(job_name=self.folder.name, **self._resources)
        self._asked = time.monotonic()
        self._missing: dict[int, int] = {}

    def room(self, running: int) -> int:
        return 1_000_000  # they wait in the queue

    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> "list[submitit.Job[JobReturn]]":
        known, queued = self._known(), states()
        names = [" ".join(overrides) for _, overrides in jobs]
        alive = {name: job for name in names if name in known and (job := self._alive(known[name], queued))}
        new = [job for job, name in zip(jobs, names, strict=True) if name not in alive]
        submitted = iter(self._submit(new) if new else ())
        begun = [alive[name] if name in alive else next(submitted) for name in names]
        known |= {name: job.job_id for name, job in zip(names, begun, strict=True)}
        write_atomically(self.files / "jobs.json", json.dumps(known, indent=2) + "\n")
        return begun

    def _submit(self, jobs: Sequence[tuple[int, list[str]]]) -> "list[submitit.Job[JobReturn]]":
        run = self.job({"OMP_NUM_THREADS": str(self.cpus)})
        arguments = [self.arguments(*job) for job in jobs]
        try:
            return self._executor.map_array(run, *zip(*arguments, strict=True))
        except FailedJobError as error:
            told = [line for line in str(error).splitlines() if line.startswith("sbatch: error")]
            raise UserError(f"hydra/launcher=slurm: {told[-1] if told else error}") from error

    def _known(self) -> dict[str, str]:
        """Words -> Slurm's id of each job that was ever submitted."""
        try:
            return json.loads((self.files / "jobs.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def _alive(self, number: str, queued: Mapping[str, str]) -> "submitit.Job[JobReturn] | None":
        """The job with this id, if it waits or runs."""
        job = submitit.SlurmJob(self.files / "%j", number, tasks=range(self.nodes * self.tasks))
        alive = queued.get(number, "COMPLETING") != "COMPLETING" and not job.task(0).paths.result_pickle.exists()
        return job if alive else None

    def poll(self, running: "Mapping[int, submitit.Job[JobReturn]]") -> Iterator[tuple[int, JobReturn]]:
        self.wait(POLL_S)
        queued = None
        if time.monotonic() > self._asked + ASK_S:
            self._asked = time.monotonic()
            queued = states()
        for place, job in running.items():
            if queued is not None:
                self._missing[place] = 0 if job.job_id in queued else self._missing.get(place, 0) + 1
            if job.task(0).paths.result_pickle.exists() or self._missing.get(place, 0) >= PATIENCE:
                yield place, self.returned(job)

    def stop(self, running: "Sequence[submitit.Job[JobReturn]]", at_once: bool) -> None:
        numbers = [job.job_id for job in running]
        if not at_once:  # SIGINT: SIGTERM would put them back in the queue
            _scancel("--state=PENDING", *numbers)
            _scancel("--state=RUNNING", "--signal=INT", *numbers)
        else:
            _scancel(*numbers)


def states(numbers: Sequence[str] = ()) -> dict[str, str]:
    """Number -> state of the user's jobs that wait or run, or of some.

    Raises:
        UserError: the scheduler does not answer.
    """
    which = ["--jobs", ",".join(numbers)] if numbers else ["--user", str(os.getuid())]
    command = ["squeue", "--noheader", "--array", "--format=%i %T", *which]
    said = ""
    for attempt in range(6):
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return dict(line.split() for line in asked.stdout.splitlines() if line.strip())
        said = asked.stderr.strip()
        time.sleep(2**attempt)
    raise UserError(f"hydra/launcher=slurm: squeue does not answer: {said}")


def _scancel(*words: str) -> None:
    subprocess.run(["scancel", *words], capture_output=True, check=False)
