"""3D Shapes (Burgess & Kim 2018): 480,000 pictures of a thing in a room, 64x64 in colour, from six known factors.

Every combination of the hues of floor, wall and object (10 each), scale (8), shape (4) and orientation (15) once: the
data of Kim & Mnih 2018, "Disentangling by Factorising". 5.9 GB in memory.

Shapes: N images, F = 6 factors.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile, fetch
from attelbo.data.sources.base import Factor, FileSource, Splits, damaged, read_verified, split_in_blocks
from attelbo.errors import DataError

URL = "https://storage.googleapis.com/3d-shapes/3dshapes.h5"
FILE = DataFile("shapes3d/3dshapes.h5", "099a2078d58cec4daad0702c55d06868")

_ROWS_AT_ONCE = 4096


class Shapes3D(FileSource):
    """3D Shapes; y holds the numbers of the six factors' values. Reading the file takes the package h5py.

    No split was published: the test rows are the first ``test_size`` of a fixed permutation.

    Raises:
        ValueError: a test set that is empty.
    """

    shape = (3, 64, 64)
    gives_away = True
    factors = (
        Factor("floor hue", 10),
        Factor("wall hue", 10),
        Factor("object hue", 10),
        Factor("scale", 8),
        Factor("shape", 4, ordered=False),
        Factor("orientation", 15),
    )

    def __init__(self, test_size: int = 10_000) -> None:
        check_at_least(1, test_size=test_size)
        self.test_size = test_size

    def prepare(self, root: Path) -> None:
        """Download the file, unless it could not be read."""
        _h5py()
        super().prepare(root)

    def files(self) -> list[DataFile]:
        """The one file."""
        return [FILE]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published."""
        fetch(URL, FILE, folder)

    def read(self, root: Path) -> Splits:
        """Read the file, each image straight to its place in its split."""
        h5py, path = _h5py(), root / FILE.path
        content = io.BytesIO(read_verified(root, FILE))
        try:
            with h5py.File(content, "r") as file:
                images, labels = file["images"], file["labels"]
                n, wanted = len(labels), (self.shape[1], self.shape[2], self.shape[0])
                if images.shape != (n, *wanted) or images.dtype != np.uint8:
                    raise ValueError(f"images is {images.dtype} of shape {images.shape}")
                y = self._numbered(labels[:])
                return split_in_blocks(self, path, _blocks(images), y, self.test_size, "shapes3d test split")
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise damaged(path, f"not the 3D Shapes file ({type(error).__name__}: {error})") from error

    def _numbered(self, labels: np.ndarray) -> Tensor:
        """The numbers of the factors' values, in the order of these, (N, F) int64."""
        columns = [np.unique(column, return_inverse=True) for column in labels.T]
        if (found := [len(values) for values, _ in columns]) != [factor.n_values for factor in self.factors]:
            raise ValueError(f"labels has {found} values of the factors")
        return torch.from_numpy(np.stack([numbers for _, numbers in columns], 1).astype(np.int64))


def _blocks(images: Any) -> Iterator[Tensor]:
    """The images (b, 3, 64, 64), whole chunks of the file at a time: each of them is decompressed once."""
    chunk = images.chunks[0] if images.chunks else 1
    rows = chunk * -(-_ROWS_AT_ONCE // chunk)
    for start in range(0, len(images), rows):
        yield torch.from_numpy(images[start : start + rows]).permute(0, 3, 1, 2)


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"Shapes3D: the file is HDF5, which the package h5py reads: pip install h5py ({error})"
        ) from error
    return h5py
