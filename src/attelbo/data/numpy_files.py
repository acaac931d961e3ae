"""NumPy's files: which arrays they hold, by their headers, with what is wrong with a file told in one line.

Nothing pickled is opened.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from attelbo.errors import DataError, one_line

_WRONG = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


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
                return {"": Member(path, "", *_header(stream))}
        members: dict[str, Member] = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as stream:
                    name = entry.removesuffix(".npy")
                    members[name] = Member(path, name, *_header(stream))
        return members
    except _WRONG as error:
        missing = not path.exists()
        why = "no such file" if missing else f"it is no .npy or .npz file of NumPy's ({one_line(error)})"
        raise DataError(
            f"{path.absolute()}: {why}; data.source.path says which file, from paths.data_dir or absolutely"
        ) from error


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
