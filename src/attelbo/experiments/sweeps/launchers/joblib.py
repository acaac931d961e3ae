"""``hydra/launcher=joblib``: worker processes of joblib, each with its own GPU or share of the cores.

As hydra-joblib-launcher, except that each worker is a pool by itself: one that is killed, when memory runs out, say,
affects neither the others nor later jobs, and a worker keeps its GPU for as long as it lives. A worker imports what it
needs once and keeps the data of the previous job.
"""

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_joblib_launcher._core import execute_job
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from attelbo.checks import check_at_least
from attelbo.experiments.sweeps.launchers.base import POLL_S, Elsewhere, imitate_command
from attelbo.experiments.sweeps.launchers.slots import Slot, slots_here

PARENT_S = 0.2
"""Seconds between a worker's checks that the command is still alive."""


class Joblib(Elsewhere):
    """Jobs in worker processes on this machine.

    Args:
        n_jobs: jobs at a time; None: one for each GPU, or for each core.
        gpus: GPUs of each job, where there are any and its trainer uses one.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n_jobs: int | None = None, gpus: int = 1) -> None:
        super().__init__()
        check_at_least(1, n_jobs=n_jobs)
        check_at_least(0, gpus=gpus)
        self.n_jobs, self.gpus = n_jobs, gpus
        self._idle: list[_Worker] = []
        self._workers: list[_Worker] = []

    def open(self, n_jobs: int) -> None:
        execute = partial(
            execute_job,
            hydra_context=self.hydra_context,
            config=self.config,
            task_function=self.task_function,
            singleton_state=Singleton.get_state(),
        )
        self._workers = [_Worker(slot, execute) for slot in slots_here(self.n_jobs, self.gpus, n_jobs, self.config)]
        self._idle = list(reversed(self._workers))

    def room(self, running: int) -> int:
        return len(self._idle)

    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> "Sequence[_Running]":
        workers = [self._idle.pop() for _ in jobs]
        return [_Running(worker, worker.submit(*job)) for worker, job in zip(workers, jobs, strict=True)]

    def poll(self, running: "Mapping[int, _Running]") -> Iterator[tuple[int, JobReturn]]:
        futures = {job.future: place for place, job in running.items()}
        for future in concurrent.futures.wait(futures, POLL_S, concurrent.futures.FIRST_COMPLETED).done:
            worker = running[futures[future]].worker
            try:
                returned = future.result()
            except BrokenProcessPool:
                returned = JobReturn()
                worker.discard()
            self._idle.append(worker)
            yield futures[future], returned

    def stop(self, running: "Sequence[_Running]", at_once: bool) -> None:
        for job in running:
            job.worker.signal(signal.SIGINT if at_once else signal.SIGTERM)

    def close(self) -> None:
        for worker in self._workers:
            worker.shut_down()


class _Worker:
    """A process, started when it is first needed, and again when it has died."""

    def __init__(self, slot: Slot, execute: Any) -> None:
        self._slot = slot
        self._execute = execute
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, number: int, overrides: list[str]) -> "Future[JobReturn]":
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, env=dict(self._slot), initializer=_begin, initargs=(os.getpid(), sys.argv, self._execute)
            )
        return self._pool.submit(_work, number, overrides)

    def signal(self, number: int) -> None:
        for pid in list(self._pool._processes) if self._pool else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def discard(self) -> None:
        """Clean up after the process has died: the next job starts a new one."""
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)
        self._pool = None

    def shut_down(self) -> None:
        """Let the process end."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None


class _Running(NamedTuple):
    worker: _Worker
    future: "Future[JobReturn]"


# -- in the worker -------------------------------------------------------------------------------------

_execute: Any = None


def _begin(parent: int, argv: list[str], execute: Any) -> None:
    """Initialize a worker. It gets no signals from the terminal, which the command passes on; and it dies when the
    command is killed, since its job would else still be writing when the command is given again."""
    global _execute
    _execute = execute
    imitate_command(argv)
    os.setpgid(0, 0)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _work(number: int, overrides: list[str]) -> JobReturn:
    return _execute(number, overrides)
