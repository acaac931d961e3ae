"""The base of launchers that run jobs in other processes: starting, watching and stopping them.

A job that dies does not affect the others. A signal to the command (SIGTERM, Ctrl-C) is passed on: the running jobs
save their state and end, the others do not begin, and the command ends with 128 + signal; a second one stops them at
once.
"""

import importlib.util
import signal
import sys
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

POLL_S = 0.5
"""Seconds between two polls of the jobs."""

Ended = Callable[[int, JobReturn], None]
"""Called when a job has ended, with its place in the list and what it returned."""


def imitate_command(argv: Sequence[str]) -> None:
    """Make this process look like the command: Lightning starts further ranks by the command line of their parent."""
    sys.argv = list(argv)
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("attelbo.__main__")


class Elsewhere(Launcher):
    """Jobs in other processes: started while there is room, watched until the last has ended."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def __init__(self) -> None:
        self.ended: Ended = lambda place, returned: None
        self._signals: list[int] = []
        self._signalled = threading.Event()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; what each returned, with the status ``UNKNOWN`` for one that was killed or never started.

        Raises:
            SystemExit: a signal stopped them; 128 + signal.
            UserError: they cannot be run here.
        """
        returns = [JobReturn() for _ in job_overrides]
        waiting, running, told = deque(range(len(returns))), dict[int, Any](), 0
        with self._signals_noted():
            try:
                self.open(len(returns))
                while running or (waiting and not self._signals):
                    if told < len(self._signals):
                        told = self._tell(told, running)
                    elif waiting and not told:
                        places = [waiting.popleft() for _ in range(min(self.room(len(running)), len(waiting)))]
                        numbered = [(initial_job_idx + place, list(job_overrides[place])) for place in places]
                        running |= zip(places, self.start(numbered) if numbered else (), strict=True)
                    for place, returned in list(self.poll(running)):
                        returns[place] = returned
                        del running[place]
                        self.ended(place, returned)
            finally:
                self.close()
        if self._signals:
            raise SystemExit(128 + self._signals[0])
        return returns

    @property
    def folder(self) -> Path:
        """The sweep's directory."""
        return Path(self.config.hydra.sweep.dir)

    def wait(self, seconds: float = POLL_S) -> None:
        """Sleep for so long, or until a signal comes."""
        self._signalled.wait(seconds)
        self._signalled.clear()

    # -- what each launcher implements -----------------------------------------------------------------

    @abstractmethod
    def open(self, n_jobs: int) -> None:
        """Prepare for so many jobs."""

    @abstractmethod
    def room(self, running: int) -> int:
        """How many jobs can be started now, beside those that are running."""

    @abstractmethod
    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> Sequence[Any]:
        """Start jobs (number, overrides); a handle for each."""

    @abstractmethod
    def poll(self, running: Mapping[int, Any]) -> Iterator[tuple[int, JobReturn]]:
        """Wait a moment; the jobs that have ended since."""

    @abstractmethod
    def stop(self, running: Sequence[Any], at_once: bool) -> None:
        """Tell jobs to save their state and end, or to end at once."""

    def close(self) -> None:
        """Clean up when all jobs have ended."""

    # -- signals ---------------------------------------------------------------------------------------

    def _tell(self, told: int, running: Mapping[int, Any]) -> int:
        """Pass on a signal that came; the number of signals passed on so far."""
        if running:
            how = "ending at once" if told else "saving their state; Ctrl-C once more does not wait for it"
            sys.stderr.write(f"sweep: stopped, with {len(running)} running: {how}\n")
            self.stop(list(running.values()), at_once=told > 0)
        return len(self._signals)

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Note signals, to be acted on between two polls of the jobs."""
        self._signals.clear()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)
        self._signalled.set()
