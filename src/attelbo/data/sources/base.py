"""What every image data set has in common.

Shapes: N rows, (C, H, W) image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.data import files
from attelbo.data.files import DataFile, Downloaded
from attelbo.data.module import fixed_generator
from attelbo.errors import DataError

EMBEDDED = "data=digits needs no files"


class Images(NamedTuple):
    """Rows of a data set, in the order of its files."""

    x: Tensor
    """(N, C, H, W) uint8; (N, C, H, W / 8) where the source packs eight binary pixels in a byte. Floats where they are
    real numbers, and (N, D) of vectors."""
    y: Tensor | None
    """Labels (N,) or factors of variation (N, F), int64, where there are any."""
    segments: Tensor | None = None
    """The object that each pixel belongs to, (N, H, W) int8, -1 for the background, where the source knows it."""


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


class ImageSource(ABC):
    """An image data set, or one of vectors. Shape and classes are known without reading any file, or by ``look``."""

    described: bool = True
    """Whether they are known by now."""
    shape: tuple[int, ...]
    """(C, H, W), or (D,) of vectors."""
    n_classes: int | None = None
    """Classes in y, or None where y holds factors of variation or there is none."""
    how_labelled: str = ""
    """Of the user's own files: the key by which they come with classes, and what it does."""
    factors: tuple[Factor, ...] = ()
    """The columns of y, where it holds factors of variation."""
    binary: bool = False
    """Whether pixels are 0 or 1 already."""
    real: bool = False
    """Whether x comes as real numbers, in floats: for :class:`attelbo.data.ArrayDataModule`."""
    n_validation: int = 0
    """So many of the training rows, the last ones, were published for validation."""
    packed: bool = False
    """Whether x comes as eight binary pixels in each byte (most significant bit first)."""
    gives_away: bool = False
    """Whether nobody else has what ``load`` returns, so that rows may change their places in it: a large data set is
    divided where it lies, not copied."""
    crop: int | None = None
    """The side, in pixels, of the square in the middle of a picture that is resized; None: its shorter side."""
    n_objects: int | None = None
    """The most objects in an image, where it comes with segments."""

    def __repr__(self) -> str:
        said = {name: value for name, value in vars(self).items() if name != "n_validation"}  # maybe found in the files
        return f"{type(self).__name__}({said})"

    def prepare(self, root: Path) -> None:  # noqa: B027  (embedded data have nothing to prepare)
        """Download what is missing from ``root``.

        Raises:
            DataError: if that fails.
        """

    def look(self, root: Path) -> None:  # noqa: B027  (most data sets are described already)
        """Read from the files what is not known without them.

        Raises:
            DataError: if a file is missing or damaged.
        """

    def class_names(self, root: Path) -> tuple[str, ...]:
        """The names of the classes in y, in the order of their numbers; none where they have numbers only, or the files
        that name them are not there."""
        return ()

    @abstractmethod
    def load(self, root: Path) -> Splits:
        """Read and check the files.

        Raises:
            DataError: if a file is missing or damaged.
        """


class FileSource(Downloaded, ImageSource):
    """A data set that lives in files, in torchvision's layout, downloaded by torchvision's own code."""

    embedded = EMBEDDED

    @abstractmethod
    def read(self, root: Path) -> Splits:
        """Read and check files that are all there."""

    def load(self, root: Path) -> Splits:
        """Read and check the files; see :meth:`ImageSource.load`."""
        self.require(root)
        return self.read(root)


def read_verified(root: Path, file: DataFile) -> bytes:
    """The bytes of a file, checked against its MD5 sum; see :func:`attelbo.data.files.read_verified`."""
    return files.read_verified(root, file, EMBEDDED)


def damaged(path: Path, why: str) -> DataError:
    """The error for a file that is not what it should be."""
    return files.damaged(path, why, EMBEDDED)


def as_images(source: ImageSource, path: Path, x: Tensor, y: Tensor | None) -> Images:
    """Rows of the source's shape, with one label each where it has any.

    Raises:
        DataError: if type, shape, number of rows or labels are not as the source says.
    """
    channels, height, width = source.shape
    shape = (channels, height, width // 8 if source.packed else width)
    if x.dtype != torch.uint8 or tuple(x.shape[1:]) != shape or len(x) == 0:
        raise damaged(path, f"expected uint8 images of shape (N, {', '.join(map(str, shape))}), got {_describe(x)}")
    if y is None:
        return Images(x, y)
    if y.dtype != torch.int64 or len(y) != len(x):
        raise damaged(path, f"expected {len(x)} integer labels, got {_describe(y)}")
    if source.n_classes is not None and (y.ndim != 1 or int(y.min()) < 0 or int(y.max()) >= source.n_classes):
        raise damaged(path, f"expected labels in 0..{source.n_classes - 1}, got {int(y.min())}..{int(y.max())}")
    return Images(x, y)


def concatenated(parts: Sequence[Images]) -> Images:
    """The rows of all parts, which have labels, one after the other."""
    return Images(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts if part.y is not None]))


def split_permutation(path: Path, n: int, test_size: int, purpose: str) -> Tensor:
    """An order of n rows that is the same in every run, (n,): the first ``test_size`` of them are for testing.

    Raises:
        DataError: that leaves none to train on.
    """
    if test_size >= n:
        raise damaged(path, f"{n:,} images leave none for training beside {test_size:,} to test")
    return torch.randperm(n, generator=fixed_generator(purpose))


def split_in_blocks(
    source: ImageSource, path: Path, blocks: Iterable[Tensor], y: Tensor, test_size: int, purpose: str
) -> Splits:
    """Rows (b, C, H, W) that are read in blocks, split by :func:`split_permutation`: each goes straight to its place,
    so that no more than a block of them is in memory twice.

    Raises:
        DataError: there are not as many as there are rows of y (N, F), or none would be left to train on.
    """
    n = len(y)
    permutation = split_permutation(path, n, test_size, purpose)
    place = torch.empty_like(permutation)
    place[permutation] = torch.arange(n)
    x, stop = torch.empty(n, *source.shape, dtype=torch.uint8), 0
    for block in blocks:
        start, stop = stop, stop + len(block)
        x[place[start:stop]] = block
    if stop != n:
        raise damaged(path, f"{stop:,} images, {n:,} rows of factors")
    y = y[permutation]
    return Splits(Images(x[test_size:], y[test_size:]), Images(x[:test_size], y[:test_size]))


def checked(source: ImageSource, root: Path) -> Splits:
    """What a source loads, after a check that types, shapes and labels are those that it declares.

    Raises:
        DataError: a file is missing or damaged, or they are not.
    """
    splits = source.load(root)
    kinds = [type(images).__name__ for images in splits] if isinstance(splits, tuple) else []
    if kinds != [Images.__name__] * 2:
        got = type(splits).__name__ + (f" of {', '.join(kinds)}" if kinds else "")
        raise DataError(f"{type(source).__name__}.load must give Splits(Images(x, y), Images(x, y)), got a {got}")
    return Splits(*(_check_rows(source, images) for images in splits))


def _check_rows(source: ImageSource, images: Images) -> Images:
    x, y = images.x, images.y
    shape = (*source.shape[:-1], source.shape[-1] // 8) if source.packed else tuple(source.shape)
    loaded = f"{type(source).__name__}.load"
    right = isinstance(x, Tensor) and (x.is_floating_point() if source.real else x.dtype == torch.uint8)
    if not right or tuple(x.shape[1:]) != shape or len(x) == 0:
        kind = "floats" if source.real else "uint8"
        raise DataError(f"{loaded}: x must be {kind} of shape (N, {', '.join(map(str, shape))}), got {_describe(x)}")
    if source.n_classes is None and not source.factors:
        return images
    wanted = (len(x), len(source.factors)) if source.factors else (len(x),)
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or tuple(y.shape) != wanted:
        raise DataError(f"{loaded}: y must be int64 of shape {wanted}, got {'none' if y is None else _describe(y)}")
    if source.n_classes is not None and not 0 <= int(y.min()) <= int(y.max()) < source.n_classes:
        raise DataError(f"{loaded}: y must be in 0..{source.n_classes - 1}, got {int(y.min())}..{int(y.max())}")
    return images


def _describe(x: Tensor) -> str:
    kind = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__
    return f"{kind} of shape {tuple(x.shape)}"
