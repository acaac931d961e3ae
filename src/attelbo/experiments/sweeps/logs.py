"""``train.log``: the output of a job that runs beside others, whose lines would be mixed on the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from attelbo.experiments.rundir import RunDirectory

FILE = "train.log"


def of_job(sweep: Path, config: dict[str, Any]) -> Path:
    """The log of a job of a sweep; each further rank, started by a cluster, has one of its own.

    Raises:
        UserError: the job's directory cannot be made.
    """
    rank: int = rank_zero_only.rank  # pyright: ignore[reportFunctionMemberAccess] - it is put there
    return RunDirectory.job(sweep, config).path / (f"train.{rank}.log" if rank else FILE)


@contextmanager
def written_to(file: Path) -> Iterator[None]:
    """Append what this process, and those that it starts, write on standard output and error to a file."""
    with file.open("ab") as log:
        kept = _redirect(log.fileno(), log.fileno())
        try:
            yield
        finally:
            for copy in (*_redirect(*kept), *kept):
                os.close(copy)


def _redirect(output: int, error: int) -> tuple[int, int]:
    """Redirect the standard streams to these file descriptors; copies of the previous ones."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    os.dup2(output, 1)
    os.dup2(error, 2)
    return before


def last_line(file: Path) -> str:
    """The last line of a log that is not blank."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
