"""small NORB (LeCun, Huang & Bottou 2004): 48,600 photographs of 50 toys in grey, from four known factors.

Every combination of elevation (9), azimuth (18) and lighting (6) of each toy once, ten toys in each of five categories.
As disentanglement_lib has it: the left one of each pair of photographs, resized (Lanczos) from 96 to 64 pixels, and
the toy itself is no factor. Differs from it: it trains on both parts, here the published one is kept, so that the toys
to test on were never seen.

Shapes: N images, F = 4 factors.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile
from attelbo.data.sources.base import Factor, FileSource, Images, Splits, as_images, damaged, read_verified
from attelbo.data.sources.resizing import resized

URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
FOLDER = "small_norb"
_TRAIN, _TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
MD5 = {
    f"{_TRAIN}-dat.mat.gz": "66054832f9accfe74a0f4c36a75bc0a2",
    f"{_TRAIN}-cat.mat.gz": "23c8b86101fbf0904a000b43d3ed2fd9",
    f"{_TRAIN}-info.mat.gz": "51dee1210a742582ff607dfd94e332e3",
    f"{_TEST}-dat.mat.gz": "e4ad715691ed5a3a5f138751a4ceb071",
    f"{_TEST}-cat.mat.gz": "5aa791cd7e6016cf957ce9bdb93b8603",
    f"{_TEST}-info.mat.gz": "a9454f3864d7fd4bb3ea7fc3eb84924e",
}
SIDE = 96

_TYPES = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
"""By the number that a file begins with."""


class SmallNORB(FileSource):
    """small NORB at ``size`` x ``size`` pixels, 24,300 + 24,300; y holds the numbers of the four factors' values.

    Raises:
        ValueError: a size below 1.
    """

    factors = (
        Factor("category", 5, ordered=False),
        Factor("elevation", 9),
        Factor("azimuth", 18),
        Factor("lighting", 6, ordered=False),
    )

    def __init__(self, size: int = 64) -> None:
        check_at_least(1, size=size)
        self.shape = (1, size, size)

    def files(self) -> list[DataFile]:
        """Three for each part."""
        return [DataFile(f"{FOLDER}/{name}", md5) for name, md5 in MD5.items()]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published; what is in ``root`` is not downloaded again."""
        self.fetch_missing(URL, folder, root)

    def read(self, root: Path) -> Splits:
        """Read the files of both parts, and resize the images."""
        return Splits(self._part(root, _TRAIN), self._part(root, _TEST))

    def _part(self, root: Path, part: str) -> Images:
        pairs, category, others = (_read_matrix(root, f"{part}-{kind}.mat.gz") for kind in ("dat", "cat", "info"))
        path, n = root / FOLDER / f"{part}-dat.mat.gz", len(pairs)
        if pairs.shape != (n, 2, SIDE, SIDE) or category.shape != (n,) or others.shape != (n, 4):
            shapes = f"{pairs.shape}, {category.shape} and {others.shape}"
            raise damaged(path, f"images, categories and other factors do not go together: {shapes}")
        _, elevation, azimuth, lighting = others.T
        y = torch.from_numpy(np.stack([category, elevation, azimuth // 2, lighting], 1).astype(np.int64))
        sizes = torch.tensor([factor.n_values for factor in self.factors])
        if bool(((y < 0) | (y >= sizes)).any()) or bool((azimuth % 2).any()):
            raise damaged(path.with_name(f"{part}-info.mat.gz"), "values of factors that there are not")
        return as_images(self, path, resized(pairs[:, 0], self.shape), y)


def _read_matrix(root: Path, name: str) -> NDArray[Any]:
    """The array in a file of NORB's own kind: a number for its type, the number of dimensions, at least three sizes,
    and the values, all of them in little-endian order."""
    path = root / FOLDER / name
    try:
        content = gzip.decompress(read_verified(root, DataFile(f"{FOLDER}/{name}", MD5[name])))
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"not a whole gzip file ({error})") from error
    header = np.frombuffer(content[: min(len(content) // 4 * 4, 24)], "<u4").tolist()
    kind, n_dimensions, *sizes = [*header, 0, 0]
    shape = tuple(sizes[:n_dimensions])
    if kind not in _TYPES or len(shape) != n_dimensions:
        raise damaged(path, "no header of a matrix of bytes or integers")
    start = 8 + 4 * max(n_dimensions, 3)
    if len(content) != start + math.prod(shape) * _TYPES[kind].itemsize:
        raise damaged(path, f"its header promises {shape} values, it has {len(content):,} bytes")
    return np.frombuffer(content, _TYPES[kind], offset=start).reshape(shape)
