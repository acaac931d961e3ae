"""What launchers share that run jobs in other processes: how many at a time, what became of each, how all are stopped.

A job that dies takes no other along. A signal to the command (SIGTERM, Ctrl-C) is passed on: the jobs that run save
their state and end, the others do not begin, and the command ends with 128 + signal; a second one stops them at once.
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
"""Between two looks at the jobs."""

Ended = Callable[[int, JobReturn], None]
"""Is told of a job, by its place in the list, what it handed back when it ended."""


def stand_in(argv: Sequence[str]) -> None:
    """Let this process pass for the command: Lightning starts those that help with a run by what it was started by."""
    sys.argv = list(argv)
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("attelbo.__main__")


class Elsewhere(Launcher):
    """Jobs in other processes: begun while there is room, watched until the last has ended."""

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
        """Run the jobs; what each handed back, nothing (``UNKNOWN``) of one that was killed or never begun.

        Raises:
            SystemExit: a signal stopped them; 128 + signal.
            UserError: there is no way to run them.
        """
        returns = [JobReturn() for _ in job_overrides]
        waiting, running, told = deque(range(len(returns))), dict[int, Any](), 0
        with self._heeded():
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
        """Sleep, but for a signal."""
        self._signalled.wait(seconds)
        self._signalled.clear()

    # -- what each launcher does in its own way --------------------------------------------------------

    @abstractmethod
    def open(self, n_jobs: int) -> None:
        """Get ready for so many jobs."""

    @abstractmethod
    def room(self, running: int) -> int:
        """How many jobs can be begun now, beside so many."""

    @abstractmethod
    def start(self, jobs: Sequence[tuple[int, list[str]]]) -> Sequence[Any]:
        """Begin jobs (number, overrides); of each what it is known by."""

    @abstractmethod
    def poll(self, running: Mapping[int, Any]) -> Iterator[tuple[int, JobReturn]]:
        """Wait a moment; the jobs that have ended."""

    @abstractmethod
    def stop(self, running: Sequence[Any], at_once: bool) -> None:
        """Tell jobs to save their state and to end, or only to end."""

    def close(self) -> None:
        """All jobs have ended."""

    # -- signals ---------------------------------------------------------------------------------------

    def _tell(self, told: int, running: Mapping[int, Any]) -> int:
        """Pass on a signal that came; how many have been."""
        if running:
            how = "ending at once" if told else "saving their state; Ctrl-C once more does not wait for it"
            sys.stderr.write(f"sweep: stopped, with {len(running)} running: {how}\n")
            self.stop(list(running.values()), at_once=told > 0)
        return len(self._signals)

    @contextmanager
    def _heeded(self) -> Iterator[None]:
        """Signals are noted, and acted on between two looks at the jobs."""
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
