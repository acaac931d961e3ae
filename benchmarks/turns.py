"""Contestants that run in turns: A1 B1 A2 B2 ..., each in a process of its own, one awake at a time.

A lap is an epoch. Start-up is paid once and counts for nothing; then whatever else the machine is doing falls
on neighbouring laps of all contestants alike, so that ratios of neighbours hold where times do not.

A contestant is a program, started as ``python -m MODULE DESCRIPTOR TASK``, perhaps by the Python of another
environment. It says "ready", and for each lap it waits for the word to go and answers with what it measured
(:class:`Track`, standard library only). Its terminal is a pseudo-terminal, so that a progress bar believes to be
watched and costs what it costs a user.
"""

import json
import math
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds by the clock on the wall, and of processor time in all threads of the process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Span") -> "Span":
        return Span(self.wall - other.wall, self.cpu - other.cpu)


@dataclass(frozen=True, slots=True)
class Lap:
    """One epoch of one contestant."""

    rows: int
    """Rows trained on."""
    train: Span
    """The training steps with all that goes on between them."""
    whole: Span
    """From the start of this epoch to the start of the next: validation and checkpoints too."""
    validation: float
    """The evidence lower bound after it, or the log-likelihood of a token, nats: whoever is fast must have learned as
    much."""
    gpu_memory: int | None = None
    """Bytes that torch's allocator held at most so far, on a GPU."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**{**fields, "train": Span(**fields["train"]), "whole": Span(**fields["whole"])})


# -- the contestant's side -------------------------------------------------------------------------------


class Track:
    """How a contestant waits for its turn and reports its laps.

    Args:
        descriptor: the socket that the referee passed on, from the command line.
    """

    def __init__(self, descriptor: int) -> None:
        self._line = socket.socket(fileno=descriptor).makefile("rw", encoding="utf-8")

    def ready(self, about: Mapping[str, Any]) -> None:
        """Say once what only this process knows about itself."""
        self._send(about)

    def wait(self) -> None:
        """Sleep until it is this contestant's turn (or, after the last lap, until all have finished)."""
        if not self._line.readline():
            raise SystemExit("the referee has gone")

    def report(self, lap: Lap) -> None:
        self._send(asdict(lap))

    def _send(self, message: Mapping[str, Any]) -> None:
        self._line.write(json.dumps(message) + "\n")
        self._line.flush()


# -- the referee's side ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """What to start."""

    module: str
    task: str
    """Its last argument."""
    python: str = sys.executable
    """The interpreter, which decides on the environment."""


class Contestant:
    """A running program, from the referee's side."""

    def __init__(self, program: Program) -> None:
        self.module = program.module
        self._output = b""
        mine, theirs = socket.socketpair()
        terminal, tty = pty.openpty()
        self._process = subprocess.Popen(
            [program.python, "-m", program.module, str(theirs.fileno()), program.task],
            stdin=subprocess.DEVNULL,
            stdout=tty,
            stderr=tty,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
        )
        theirs.close()
        os.close(tty)
        with mine:  # the file keeps the connection open
            self._line = mine.makefile("rw", encoding="utf-8")
        # Someone must read what is written to a terminal, or the writer comes to a halt.
        self._reader = threading.Thread(target=self._read, args=[terminal], daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(BrokenPipeError):  # a word that nobody was there to hear
            self._line.close()  # whoever still waits for his turn ends now, and tidies up
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=10)

    def hear(self) -> dict[str, Any]:
        """Its next message.

        Raises:
            RuntimeError: it has ended without one.
        """
        if line := self._line.readline():
            return json.loads(line)
        self._reader.join(timeout=10)
        raise RuntimeError(f"{self.module} ended with {self._process.wait()}:\n{plain(self._output)}")

    def go(self) -> None:
        """It is its turn."""
        self._line.write("go\n")
        self._line.flush()

    def peak_memory(self) -> int | None:
        """Bytes that were resident at most so far; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        peak = re.search(r"VmHWM:\s*(\d+) kB", status)
        return int(peak.group(1)) * 1024 if peak else None

    def finish(self) -> None:
        """Let it end in its own way.

        Raises:
            RuntimeError: it failed to.
        """
        self.go()
        if self._process.wait():
            self.hear()

    def _read(self, terminal: int) -> None:
        with os.fdopen(terminal, "rb", buffering=0) as file:
            while chunk := _read_some(file.read):
                self._output = (self._output + chunk)[-8000:]


def _read_some(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(4096)
    except OSError:  # how Linux says that nobody holds the other end of a terminal any more
        return b""


def plain(output: bytes) -> str:
    """What a terminal would show at the end: no colours, and of a line that was drawn again only the last state."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))
    return "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")).strip()


@dataclass(frozen=True, slots=True)
class Race:
    """What came of it, by the contestants' names."""

    laps: dict[str, list[Lap]]
    about: dict[str, Any]
    """What each said about itself."""
    memory: dict[str, int | None]
    """Bytes that were resident at most."""


def take_turns(
    programs: Mapping[str, Program],
    laps: int,
    patience: float = math.inf,
    tell: Callable[[str], object] = lambda line: None,
) -> Race:
    """Let the contestants run so many laps in turns.

    Args:
        programs: by name.
        laps: how many, two at least.
        patience: seconds after which no further lap is begun, once there are two.
        tell: is told of each lap, so that a race that is broken off leaves something.

    Raises:
        RuntimeError: one of them failed.
    """
    with ExitStack() as stack:
        about: dict[str, Any] = {}
        contestants: dict[str, Contestant] = {}
        for name, program in programs.items():  # one after the other: starting is hard work too
            contestants[name] = stack.enter_context(Contestant(program))
            about[name] = contestants[name].hear()
        times: dict[str, list[Lap]] = {name: [] for name in programs}
        memory: dict[str, int | None] = {}
        started = time.monotonic()
        for lap in range(laps):
            if lap >= 2 and time.monotonic() - started > patience:
                break  # they still wait for their turn, and end when the line goes dead
            for name, contestant in contestants.items():
                contestant.go()
                done = Lap.from_dict(contestant.hear())
                times[name].append(done)
                tell(f"lap {lap}, {name}: {done.rows / done.train.wall:,.0f} rows/s")
                memory[name] = contestant.peak_memory()
        else:
            for contestant in contestants.values():
                contestant.finish()
        return Race(times, about, memory)


def arguments(argv: Sequence[str]) -> tuple[Track, str]:
    """What a contestant was started with: its track and its task."""
    descriptor, task = argv[1:]
    return Track(int(descriptor)), task
