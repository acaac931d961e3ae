"""Errors shown as one line, never as a traceback: mistakes of the user (exit code 2) and runs that diverged (1); and
helpers for their messages."""

import errno
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """Something the user gave is wrong. The message names the key or file and the remedy."""


class ConfigError(UserError):
    """The configuration is wrong. The message names the file, the key and the nearest right spelling."""


class DataError(UserError):
    """A data file is missing or damaged. The message names the file, what is wrong and the remedy."""


class MissingDataError(DataError):
    """A data file is missing.

    Args:
        what: is missing, and where.
        remedy: in a command that trains.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # Processes send it to each other.
        return type(self), (self.what, self.remedy)


class TrainingDiverged(Exception):  # noqa: N818 - what happened, not what was done wrong
    """A term of the loss became NaN or infinite: shown as one line, exit code 1, and the run is marked failed."""

    def __init__(self, step: int, epoch: int, term: str, value: float, rows: Sequence[int]) -> None:
        where = f"at optimizer step {step} (epoch {epoch})"
        if rows:
            shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
            where += f", in the {len(rows)} training rows {shown}"
        super().__init__(
            f"training diverged: {term} is {value} {where}. "
            "A lower learning rate, gradient clipping or full precision may help"
        )
        self.step = step
        """Counted from 1."""
        self.epoch = epoch
        """Counted from 1."""
        self.term = term
        self.value = value
        self.rows = tuple(rows)
        """The rows of the training split in the minibatch; empty where validation found the fault."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The processes of a distributed run send it to each other.
        return type(self), (self.step, self.epoch, self.term, self.value, self.rows)


@contextmanager
def within_memory() -> Iterator[None]:
    """Around what may take more memory than there is.

    Raises:
        UserError: it did, on whatever device; the message says what takes less.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        found = _ASKED.search(str(error))
        asked = "" if found is None else f" ({_size(found[1], found[2])} were asked for at once)"
        raise UserError(
            f"out of memory{asked}: a smaller model takes less, so do smaller batches, data.batch_size or parts of "
            "them, trainer.micro_batches=4, and in an evaluation its batch_size and chunk"
        ) from error


@contextmanager
def reachable() -> Iterator[None]:
    """Around what looks for files by names that the user gave.

    Raises:
        UserError: the system refuses even to look: a name is too long, or a folder above is closed to this user.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP) or error.filename is None:
            raise
        name = str(error.filename)
        shown = name if len(name) <= 200 else f"{name[:60]}..."
        raise UserError(f"{shown} cannot be reached: {one_line(error)}") from error


_OUT_OF_MEMORY = re.compile("out of memory|allocate memory|Storage size calculation overflowed", re.IGNORECASE)
"""How torch says it, of GPUs, of CPUs, and of sizes that are no number of bytes."""
_ASKED = re.compile(r"(?:tried|Unable) to allocate ([\d.]+) (\w+)", re.IGNORECASE)


def _size(number: str, unit: str) -> str:
    return f"{float(number) / 1e9:,.1f} GB" if unit == "bytes" else f"{float(number):,.1f} {unit}"


def leave_out(unread: Sequence[UserError], n_read: int) -> None:
    """Tell on the standard error which of several things could not be read, a line each, since the others serve.

    Raises:
        UserError: there are no others: the first of these.
    """
    if unread and not n_read:
        raise unread[0]
    for error in unread:
        sys.stderr.write(f"left out: {error}\n")


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks; that of the operating system, without number and file."""
    said = isinstance(error, OSError) and error.strerror
    return " ".join(str(said or error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank, or of its cause's; else the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines and error.__cause__ is not None:
        return first_line(error.__cause__)
    return lines[0] if lines else type(error).__name__


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate that was probably meant, whatever its case, or None; ``cutoff=1`` takes only the same word."""
    known = {candidate.casefold(): candidate for candidate in candidates}
    close = get_close_matches(word.casefold(), known, n=1, cutoff=cutoff)
    if not close and cutoff <= 0.6 and len(word) >= 3:  # the beginning of one of them, such as val
        begun = [name for name in known if name.startswith(word.casefold())]
        close = begun if len(begun) == 1 else []
    return known[close[0]] if close else None


def did_you_mean(guess: str | None, otherwise: str = "") -> str:
    """The tail of a message: ``; did you mean X?``, and without a guess ``; `` and what else helps, or nothing."""
    advice = f"did you mean {guess}?" if guess else otherwise
    return advice and f"; {advice}"
