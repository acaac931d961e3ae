"""What every image data set has in common: where its files are, and how trouble with them is told.

Files are looked for in one folder (``paths.data_dir``) in torchvision's layout. What is missing is
downloaded by torchvision's own code, which knows the addresses and checks MD5 sums, into a temporary
folder next to the rest, and moved in place when all of it is there. A file that exists is never
overwritten and never deleted.

Shapes: N rows, (C, H, W) image.
"""

import hashlib
import http.client
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.errors import DataError

EMBEDDED = "data=digits needs no files"


class Images(NamedTuple):
    """Rows of a data set, in the order of its files."""

    x: Tensor
    """(N, C, H, W) uint8; (N, C, H, W / 8) where the source packs eight binary pixels in a byte."""
    y: Tensor
    """Labels (N,) or factors of variation (N, F), int64."""


class Splits(NamedTuple):
    """The published division of a data set, or a fixed one where none was published."""

    train: Images
    test: Images


class Factor(NamedTuple):
    """A factor of variation: a column of y."""

    name: str
    n_values: int
    ordered: bool = True
    """Whether neighbouring values are alike, as of a position; not so of a shape."""


class DataFile(NamedTuple):
    """A file below the data folder and its published MD5 sum, where there is one."""

    path: str
    md5: str | None


class ImageSource(ABC):
    """An image data set. Shape and classes are known without reading any file."""

    shape: tuple[int, int, int]
    """(C, H, W)."""
    n_classes: int | None
    """Classes in y, or None where y holds factors of variation."""
    factors: tuple[Factor, ...] = ()
    """The columns of y, where it holds factors of variation."""
    packed: bool = False
    """Whether x comes as eight binary pixels in each byte (most significant bit first)."""

    def prepare(self, root: Path) -> None:  # noqa: B027  (embedded data have nothing to prepare)
        """Download what is missing from ``root``.

        Raises:
            DataError: if that fails.
        """

    @abstractmethod
    def load(self, root: Path) -> Splits:
        """Read and check the files.

        Raises:
            DataError: if a file is missing or damaged.
        """


class FileSource(ImageSource):
    """A data set that lives in files."""

    @abstractmethod
    def missing(self, root: Path) -> list[DataFile]:
        """The files that ``root`` lacks."""

    @abstractmethod
    def download(self, folder: Path, root: Path) -> None:
        """Fetch and verify everything into an empty folder, by torchvision's code; ``root`` is only read."""

    @abstractmethod
    def read(self, root: Path) -> Splits:
        """Read and check files that are all there."""

    def prepare(self, root: Path) -> None:
        """Download what is missing from ``root``; see :meth:`ImageSource.prepare`."""
        missing = self.missing(root)
        if not missing:
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
                self.download(Path(folder), root)
                _add_missing(Path(folder), root)
        # torchvision raises RuntimeError for a wrong checksum or when every mirror failed
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise self._not_found(root, missing, f"downloading failed ({_one_line(error)})") from error

    def load(self, root: Path) -> Splits:
        """Read and check the files; see :meth:`ImageSource.load`."""
        if missing := self.missing(root):
            raise self._not_found(root, missing, "nothing was downloaded")
        return self.read(root)

    def _not_found(self, root: Path, missing: Sequence[DataFile], what_happened: str) -> DataError:
        files = ", ".join(f"{file.path} (MD5 {file.md5})" if file.md5 else file.path for file in missing)
        return DataError(
            f"{type(self).__name__}: missing in {root.absolute()}: {files}; {what_happened}; "
            f"put them there, set paths.data_dir, or use embedded data: {EMBEDDED}"
        )


def read_verified(root: Path, file: DataFile) -> bytes:
    """The bytes of a file, whose MD5 sum is as published.

    Raises:
        DataError: if it cannot be read, or the sum differs.
    """
    path = root / file.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.absolute()} cannot be read ({_one_line(error)}); {EMBEDDED}") from error
    if file.md5 is not None:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != file.md5:
            raise damaged(path, f"its MD5 sum is {found}, published is {file.md5} ({len(content):,} bytes)")
    return content


def damaged(path: Path, why: str) -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(
        f"{path.absolute()} is damaged: {why}; it was left as it is: move it away to download it again; {EMBEDDED}"
    )


def as_images(source: ImageSource, path: Path, x: Tensor, y: Tensor) -> Images:
    """Rows of the source's shape with one label each.

    Raises:
        DataError: if type, shape, number of rows or labels are not as the source says.
    """
    channels, height, width = source.shape
    shape = (channels, height, width // 8 if source.packed else width)
    if x.dtype != torch.uint8 or tuple(x.shape[1:]) != shape or len(x) == 0:
        raise damaged(path, f"expected uint8 images of shape (N, {', '.join(map(str, shape))}), got {_describe(x)}")
    if y.dtype != torch.int64 or len(y) != len(x):
        raise damaged(path, f"expected {len(x)} integer labels, got {_describe(y)}")
    if source.n_classes is not None and (y.ndim != 1 or int(y.min()) < 0 or int(y.max()) >= source.n_classes):
        raise damaged(path, f"expected labels in 0..{source.n_classes - 1}, got {int(y.min())}..{int(y.max())}")
    return Images(x, y)


def _describe(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"


def _add_missing(source: Path, target: Path) -> None:
    """Move what ``target`` does not have from ``source``; what it has stays."""
    for entry in source.iterdir():
        destination = target / entry.name
        if entry.is_dir() and destination.is_dir():
            _add_missing(entry, destination)
        elif not destination.exists():
            entry.rename(destination)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
