"""Tables of numbers in CSV files, whose first line names the columns.

Shapes: N rows, D columns.
"""

import csv
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attelbo.data.text.files import read_text
from attelbo.errors import DataError, did_you_mean, nearest


class Columns(NamedTuple):
    """Some columns of a table: what :class:`~attelbo.data.numpy_files.Member` is of an archive."""

    file: Path
    name: str
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D), or (N,) of labels."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of numbers float64, of labels int64."""
        return self.values.dtype

    @property
    def described(self) -> str:
        """How many rows and columns."""
        return f"a table of {' x '.join(map(str, self.shape))}"

    def read(self) -> NDArray[Any]:
        """The values, which cannot be written to."""
        return self.values

    def __str__(self) -> str:
        return f"{self.file.absolute()}, {self.name}"


class Table(NamedTuple):
    """A file, read."""

    x: NDArray[np.float64]
    """(N, D): all columns but that of the labels; an empty cell is NaN."""
    columns: tuple[str, ...]
    """Their names, D of them."""
    y: NDArray[np.int64] | None
    """(N,): the place of each label among the classes."""
    classes: tuple[str, ...]
    """In the order of their numbers, where all labels are whole numbers, else of their letters."""


def read_table(path: Path, label: str | None, needed: bool = True) -> Table:
    """The numbers of a CSV file, and its labels.

    Args:
        path: of the file.
        label: the column of labels, of any kind; None: there is none.
        needed: whether it must be there.

    Raises:
        DataError: the file is missing or damaged, lacks the column, or holds what is no number in another one.
    """
    state = path.stat() if path.exists() else None
    return _read(path, label, needed, state and (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)  # looked at when a model is built, read when it is trained
def _read(path: Path, label: str | None, needed: bool, state: tuple[int, int] | None) -> Table:
    content = read_text(path)
    try:
        names, *rows = filter(None, csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path.absolute()} is no CSV file ({error})") from error
    names = [name.strip() for name in names]
    _check_names(path, names)
    if label is not None and label not in names:
        if needed:
            meant = did_you_mean(nearest(label, names), f"it has {', '.join(names)}")
            raise DataError(f"{path.absolute()} has no column {label!r}, data.source.y{meant}")
        label = None
    if not rows:
        raise DataError(f"{path.absolute()} has no row but the first, which names the columns")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise DataError(f"{path.absolute()}, row {number:,}: {len(row)} cells, and {len(names)} columns are named")
    kept = [place for place, name in enumerate(names) if name != label]
    if not kept:
        raise DataError(f"{path.absolute()} has no column but {label!r}")
    x = np.empty((len(rows), len(kept)))
    for number, row in enumerate(rows):
        try:
            x[number] = [float(row[place] or "nan") for place in kept]
        except ValueError as error:
            raise _no_number(path, number, row, names, kept) from error
    y, classes = (None, ()) if label is None else _numbered([row[names.index(label)].strip() for row in rows])
    for values in (x, y):
        if values is not None:
            values.flags.writeable = False
    return Table(x, tuple(names[place] for place in kept), y, classes)


def _check_names(path: Path, names: Sequence[str]) -> None:
    where = path.absolute()
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise DataError(f"{where}: commas are to stand between columns; its first line is {names[0]!r}")
    if "" in names:
        index = "; where it is an index, to_csv(index=False) leaves it out"
        raise DataError(f"{where}: column {names.index('') + 1} has no name{index}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{where} has two columns {twice[0]!r}")
    if all(map(_is_number, names)) and list(names) != [str(place) for place in range(len(names))]:
        raise DataError(f"{where}: its first line is to name the columns, and holds numbers: {', '.join(names[:4])}")


def _no_number(path: Path, number: int, row: Sequence[str], names: Sequence[str], kept: Sequence[int]) -> DataError:
    place = next(place for place in kept if row[place] and not _is_number(row[place]))
    return DataError(
        f"{path.absolute()}, row {number + 1:,}: {row[place]!r} in column {names[place]!r} is no number; if it is the "
        f"label, data.source.y={names[place]}, else leave the column out"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbered(labels: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as places among the classes, and these."""
    if all(_is_number(label) and float(label).is_integer() for label in labels):
        labels = [str(int(float(label))) for label in labels]  # NumPy writes 1 as 1.000000000000000000e+00
        classes = sorted(set(labels), key=int)
    else:
        classes = sorted(set(labels))
    places = {label: place for place, label in enumerate(classes)}
    return np.array([places[label] for label in labels], np.int64), tuple(classes)
