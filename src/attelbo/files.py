"""Writing files atomically, reading the files of a run, and finding the run directory in a folder."""

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

from attelbo.errors import UserError, one_line

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.EISDIR}


_DEEP = 500
"""So many brackets and dashes may be as many levels of nesting."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of plain values, read by libyaml where PyYAML has it: the parser in Python takes eight
    times as long, 30 ms for a configuration.

    Raises:
        OSError, ValueError, yaml.YAMLError: it cannot be read.
    """
    import yaml  # not for ``attelbo --help``

    text = path.read_text(encoding="utf-8")
    # libyaml ends the process where it is nested too deeply; what is in Python raises an error.
    shallow = sum(map(text.count, ("[", "{", "- ", "? "))) < _DEEP
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader) if shallow else yaml.SafeLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def followed(path: Path) -> Path:
    """Where a symbolic link leads to, whether there is something yet or not; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside ``path`` to write to; at the end it is flushed to the disk and renamed to ``path``.

    A reader sees the old file or the new one, never half of either; if the block raises, the old one stays. A symbolic
    link stays one: what it leads to is replaced, as by any program that writes to it.
    """
    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A context for code that writes to a folder: a disk that is full, or refuses for another reason, is an error of
    one line.

    Raises:
        UserError: the disk is full, the folder is read-only, and the like.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        remedy = "take it away" if refusal.errno == errno.EISDIR else "make room"
        raise UserError(
            f"{refusal.filename2 or refusal.filename or folder} cannot be written: {refusal.strerror}; what was "
            f"written before is whole: {remedy} and give the same command again"
        ) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """The disk's refusal behind an error: torch raises one of its own from it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace ``path`` by ``content``, wholly or not at all. Text is UTF-8."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the lines of a CSV file; names of columns are a row like the others."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def why_not_written(path: Path) -> str | None:
    """Why no file can be written at ``path``, in the words of the operating system; None where one can. No file stays,
    and folders that are missing are not created."""
    path = followed(path)
    try:
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        TemporaryFile(dir=next(folder for folder in path.parents if folder.exists())).close()
    except OSError as error:
        return error.strerror
    return None


def link_or_copy(path: Path, to: Path) -> None:
    """Replace the file at ``to`` by a hard link to ``path``, or by a copy where the file system has no hard links. Both
    may then be replaced independently, but not written to in place, which none of our files is."""
    to = followed(to)
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(to)
    finally:
        temporary.unlink(missing_ok=True)


METRICS_FILE = "metrics.csv"
"""In a run directory: every number of the run."""


def read_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in a metrics.csv: metric -> (step, value) in the order of the steps; empty where there is no file.

    Where a metric was logged twice at one step, by a run that was interrupted, the later value counts.

    Raises:
        UserError: it is damaged.
    """
    curves: dict[str, dict[int, float]] = {}
    for row in read_rows(path) if path.is_file() else ():
        if row.step is not None:
            curves.setdefault(row.metric, {})[row.step] = row.value
    return {metric: sorted(points.items()) for metric, points in curves.items()}


class Row(NamedTuple):
    """A line of metrics.csv: a number."""

    step: int | None
    """None for what belongs to the whole run."""
    epoch: int | None
    metric: str
    value: float


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.csv, without the incomplete last line that a killed process may have left.

    Raises:
        UserError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    try:
        return [Row(_place(row["step"]), _place(row["epoch"]), row["metric"], float(row["value"])) for row in reader]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        line = reader.line_num
        raise UserError(f"{path}, line {line} cannot be read: no step, epoch, metric and value") from error


def _place(text: str) -> int | None:
    """A step or an epoch; None where there is none."""
    if not text:
        return None
    if abs(number := int(text)) >= 2**63:
        raise ValueError
    return number


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None where there is none. Files of runs and sweeps, known by their names, are checked
    (``attelbo.records``).

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    return checked(path, content)


def _whole(digits: str) -> int | list[str]:
    """A whole number. One that is too large for any value here, and for a float, becomes a list of its digits, which no
    key accepts: so the error names the key."""
    return int(digits) if len(digits) < 300 else [digits]


def checked(path: Path, content: Any) -> Any:
    """Check the content of a file of a run or a sweep, and return it.

    Raises:
        UserError: something in it is missing or wrong.
    """
    from attelbo.records import misfit  # which takes pydantic: not for ``attelbo --help``

    if (told := misfit(path.name, content)) is not None:
        raise UserError(f"{path} cannot be read: {told}")
    return content


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved configuration of a run.

    Raises:
        UserError: not a run directory, or the file is damaged.
    """
    import yaml

    path = run_dir / "config.yaml"
    try:
        content = read_yaml(path)
    except OSError as error:
        raise UserError(f"{run_dir} is not a run directory: it has no readable config.yaml") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    return checked(path, content)


def find_run(path: Path, among: Callable[[Path], bool] | None = None) -> Path:
    """The run directory that ``path`` stands for: the folder itself or, of the runs below it that have a checkpoint and
    are ``among`` those wanted, the newest one that is done, else the newest one.

    Raises:
        UserError: there is none.
    """
    if (path / "config.yaml").is_file():
        return path
    if not path.exists():
        raise UserError(f"run: {path}: no such folder; runs are in outputs/<name>/<run id>")
    if path.is_file():
        raise UserError(f"run: {path} is a file; a run is a folder, such as outputs/<name>/<run id>")
    runs = [file.parent for file in path.glob("**/status.json") if any(file.parent.glob("checkpoints/*.ckpt"))]

    def rank(run: Path) -> tuple[bool, str]:
        status = read_json(run / "status.json") or {}
        return status.get("state") == "done", status.get("started", "")

    if (newest := next(filter(among, sorted(runs, key=rank, reverse=True)), None)) is None:
        raise UserError(f"run: {path} is no run directory, and there is none with a checkpoint below it")
    return newest
