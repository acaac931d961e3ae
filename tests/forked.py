"""Processes that need not import anything: forks of this one, which has torch and Lightning already.

What a process of its own is for in a test is mostly that it can be killed, or that there are two of them. That the
commands begin from nothing as well is what tests/test_readme.py shows.
"""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only

from attelbo.cli import main


class Forked:
    """A call in a fork, with what tests and Lightning ask of ``subprocess.Popen``.

    Args:
        call: what it does; the exit code, or None for 0.
        output: the file that its standard output and error go to; None: where this process's go.
        environment: variables that are set there, after all those that Lightning, torchrun or a cluster set are gone.
    """

    def __init__(
        self, call: Callable[[], int | None], output: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.returncode: int | None = None
        self.output = output
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _be_a_process(call, output, environment or {})

    def poll(self) -> int | None:
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self, timeout: float = 120.0) -> int:
        """The exit code, minus a signal's number; a process that takes too long is killed."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"a process took more than {timeout} s:\n{self.written()}")
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def written(self) -> str:
        """What it has written so far."""
        return self.output.read_text() if self.output else ""


def _be_a_process(call: Callable[[], int | None], output: Path | None, environment: Mapping[str, str]) -> None:
    code = 1
    try:
        if output is not None:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            # What pytest put in their place writes into files of its own.
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        for name in [name for name in os.environ if name.startswith(("PL_", "LOCAL_", "RANK"))]:
            del os.environ[name]
        os.environ.update(environment)
        take_rank()
        code = call() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def take_rank() -> None:
    """Lightning reads its rank from the environment when it is imported, which was before the fork."""
    rank_zero_only.rank = _get_rank() or 0


def command(words: Sequence[str], output: Path) -> Forked:
    """``attelbo WORDS`` in a fork."""
    return Forked(lambda: main(words), output)
