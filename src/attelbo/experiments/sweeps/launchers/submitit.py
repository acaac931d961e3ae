"""Jobs through submitit, which pickles each to a file and runs it from there; a job that reaches its time limit or is
preempted is put back in the queue, and resumes from its checkpoint.

The signal for that (SIGUSR2, a while before the end) acts on the training first, which saves its state; then it is
passed on to submitit, which submits the same job again. As a job of a sweep it finds its directory, and resumes there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

from attelbo.checks import check_at_least
from attelbo.experiments.sweeps.launchers.base import Elsewhere, imitate_command
from attelbo.experiments.sweeps.launchers.slots import Slot, slots_here

STOPPED = 128


class Job(BaseSubmititLauncher):
    """What runs in the other process, and again after it was stopped: plain Hydra, with handling of signals.

    Args:
        environment: environment variables for it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.environment = dict(environment)
        self.argv = sys.argv

    def __call__(self, *arguments: Any, **more: Any) -> JobReturn:
        os.environ.update(self.environment)
        imitate_command(self.argv)
        returned = super().__call__(*arguments, **more)
        if self.goes_on(returned.return_value if returned.status.name == "COMPLETED" else None):
            signal.raise_signal(submitit.JobEnvironment._usr_sig())
        return returned

    def goes_on(self, code: int | None) -> bool:
        """Whether a job that ended with this code is to be put back in the queue."""
        return code == STOPPED + signal.SIGUSR2


class Submitted(Elsewhere):
    """Jobs that submitit runs.

    Args:
        n_jobs: jobs at a time.
        time: minutes, after which a job is stopped.
        notice: seconds before that at which it is signalled.
        requeue: how often it is then put back in the queue.

    Raises:
        ValueError: a number is out of range.
    """

    job_class: type[Job] = Job

    def __init__(self, n_jobs: int | None, time: int, notice: int, requeue: int) -> None:
        super().__init__()
        check_at_least(1, n_jobs=n_jobs, time=time, notice=notice)
        if notice >= 60 * time:
            raise ValueError(f"notice must be less than the time, {60 * time} s, got {notice}")
        check_at_least(0, requeue=requeue)
        self.n_jobs, self.time, self.notice, self.requeue = n_jobs, time, notice, requeue

    @property
    def files(self) -> Path:
        """The folder of submitit's files."""
        return self.folder.absolute() / ".submitit"

    def arguments(self, number: int, overrides: list[str]) -> tuple[Any, ...]:
        """The arguments of a call of a `Job`."""
        return overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state()

    def job(self, environment: Mapping[str, str]) -> Job:
        """The job, set up."""
        job = self.job_class(environment)
        job.setup(hydra_context=self.hydra_context, task_function=self.task_function, config=self.config)
        return job

    @staticmethod
    def returned(job: "submitit.Job[JobReturn]") -> JobReturn:
        """What a job that has ended returned; nothing if it was killed."""
        first = job.task(0)
        if not first.paths.result_pickle.exists():
            return JobReturn()
        try:
            return first.result()
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            sys.stderr.write(f"sweep: {lines[-1].strip()} [{first.paths.stderr}]\n")
            return JobReturn()


class Local(Submitted):
    """Jobs in processes on this machine, handled as on a cluster.

    Args:
        n_jobs: jobs at a time; None: one for each GPU, or for each core.
        gpus: GPUs of each job, where there are any and its trainer uses one.
        time: minutes, after which a job is stopped.
        notice: seconds before that at which it is signalled.
        requeue: how often it is then started again; submitit starts a process six times at most.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, n_jobs: int | None = None, gpus: int = 1, time: int = 60, notice: int = 30, requeue: int = 3
    ) -> None:
        super().__init__(n_jobs, time, notice, requeue)
        check_at_least(0, gpus=gpus)
        if requeue > 5:
            raise ValueError(f"requeue must be at most 5, got {requeue}")
        self.gpus = gpus
        self._free: list[Slot] = []

    def open(self, n_jobs: int) -> None:
        self._free = slots_here(self.n_jobs, self.gpus, n_jobs, self.config)[::-1]
        self._executor = submitit.LocalExecutor(self.files / "%j", max_num_timeout=self.requeue)
        self._executor.update_parameters(timeout_min=self.time, signal_delay_s=self.notice)

    def room(self, running: int) -> int:
        return len(self._free)

    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> "list[_Begun]":
        taken = [self._free.pop() for _ in jobs]
        # The processes ignore Ctrl-C: this one handles it and tells them.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return [
                _Begun(self._executor.submit(self.job(slot), *self.arguments(*job)), slot)
                for slot, job in zip(taken, jobs, strict=True)
            ]
        finally:
            signal.signal(signal.SIGINT, before)

    def poll(self, running: "Mapping[int, _Begun]") -> Iterator[tuple[int, JobReturn]]:
        self.wait()
        for place, begun in running.items():
            if begun.job._process.poll() is not None:
                self._free.append(begun.slot)
                yield place, self.returned(begun.job)

    def stop(self, running: "Sequence[_Begun]", at_once: bool) -> None:
        for begun in running:  # submitit's process for each passes on SIGTERM, and ends when the job does
            if at_once:
                subprocess.run(["pkill", "-KILL", "-P", str(begun.job._process.pid)], check=False)
            else:
                begun.job._process.send_signal(signal.SIGTERM)


class _Begun(NamedTuple):
    job: Any
    slot: Slot
