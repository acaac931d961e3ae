"""NumPy's files: which arrays they hold, by their headers, with what is wrong with a file told in one line.

Nothing pickled is opened.
"""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from attelbo.data.moving import absent
from attelbo.errors import DataError, one_line

# A header whose brackets do not close is a TokenError, a zip file of a kind that Python does not read or that is
# encrypted a RuntimeError, and sizes that no memory holds a MemoryError.
_WRONG = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
    *(tokenize.TokenError, RuntimeError, MemoryError),
)


class Member(NamedTuple):
    """An array in a file, of which the header was read."""

    file: Path
    name: str
    """In an archive; empty where the file holds nothing else."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> NDArray[Any]:
        """The array; where it is by itself in a file, mapped into memory.

        Raises:
            DataError: it cannot be read.
        """
        try:
            if not self.name:
                return np.load(self.file, mmap_mode="r", allow_pickle=False)
            with np.load(self.file, allow_pickle=False) as archive:
                return archive[self.name]
        except _WRONG as error:
            raise DataError(f"{self} cannot be read ({one_line(error)})") from error

    @property
    def described(self) -> str:
        """Type and shape."""
        return f"{self.dtype} of shape {self.shape}"

    def __str__(self) -> str:
        return f"{self.file.absolute()}{f', {self.name}' if self.name else ''}"


def members_of(path: Path) -> dict[str, Member]:
    """The arrays of a .npz file by their names, or that of a .npy file, under the name "".

    Raises:
        DataError: it is no such file, or damaged.
    """
    try:
        if path.suffix != ".npz":
            with path.open("rb") as stream:
                return {"": Member(path, "", *_header(stream)[:2])}
        members: dict[str, Member] = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as stream:
                    name = entry.removesuffix(".npy")
                    members[name] = Member(path, name, *_header(stream)[:2])
        return members
    except _WRONG as error:
        if not path.exists():
            raise absent(path, "file") from error
        raise DataError(
            f"{path.absolute()}: it is no .npy or .npz file of NumPy's ({one_line(error)}), and no .csv; "
            "data.source.path says which, from paths.data_dir or absolutely"
        ) from error


def as_tensor(x: NDArray[Any]) -> Tensor:
    """In memory, in native byte order; what was mapped from a file is copied, as it cannot be written to."""
    own = np.require(np.asarray(x), x.dtype.newbyteorder("="), ["C", "W"])
    return torch.from_numpy(own.view(np.uint8) if own.dtype == np.bool_ else own)


def rows_with_gaps(x: NDArray[Any]) -> int:
    """How many rows of x (N, ...) hold a number that is NaN or infinite."""
    return int((~np.isfinite(x.reshape(len(x), -1)).all(1)).sum())


def stream_rows(
    stream: Any, name: str, shape: tuple[int, ...], at_once: int
) -> tuple[int, Iterator[NDArray[np.uint8]]]:
    """The number of rows in a stream of a .npy file, and the rows, (b, *shape) uint8, ``at_once`` at a time.

    Raises:
        ValueError: it holds something else, or ends before its rows do; names it.
    """
    (n, *rest), dtype, fortran = _header(stream)
    if tuple(rest) != shape or fortran or dtype != np.uint8:
        raise ValueError(f"{name} is {dtype} of shape {(n, *rest)}{', in Fortran order' if fortran else ''}")

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, n, at_once):
            rows = min(at_once, n - start)
            content = bytearray(stream.read(rows * math.prod(shape)))  # an array that torch may write to
            if len(content) != rows * math.prod(shape):
                raise ValueError(f"{name} is cut off")
            yield np.frombuffer(content, np.uint8).reshape(rows, *shape)

    return n, blocks()


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return shape, dtype, fortran
