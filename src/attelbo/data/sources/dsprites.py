"""dSprites (Matthey, Higgins, Hassabis & Lerchner 2017): 737,280 sprites 64x64 from six known factors.

Every combination of colour (1), shape (3), scale (6), orientation (40) and position x, y (32 each) once.
The pixels are 0 or 1 and stay packed, eight in a byte: 0.4 GB resident instead of 3 GB.
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile, fetch
from attelbo.data.numpy_files import stream_rows
from attelbo.data.sources.base import (
    Factor,
    FileSource,
    Images,
    Splits,
    as_images,
    damaged,
    read_verified,
    split_permutation,
)

URL = "https://github.com/google-deepmind/dsprites-dataset/raw/master/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
FILE = DataFile("dsprites/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", "7da33b31b13a06f4b04a70402ce90c2e")

_ROWS_AT_ONCE = 8192
_CODEC_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


class DSprites(FileSource):
    """dSprites; y holds the six factors' class numbers (colour, shape, scale, orientation, x, y).

    No split was published: the test rows are the first ``test_size`` of a fixed permutation.

    Raises:
        ValueError: a test set that is empty.
    """

    shape = (1, 64, 64)
    n_classes = None
    binary = True
    packed = True
    factors = (
        Factor("colour", 1, ordered=False),
        Factor("shape", 3, ordered=False),
        Factor("scale", 6),
        Factor("orientation", 40),
        Factor("x", 32),
        Factor("y", 32),
    )

    def __init__(self, test_size: int = 10_000) -> None:
        check_at_least(1, test_size=test_size)
        self.test_size = test_size

    def files(self) -> list[DataFile]:
        """The one file."""
        return [FILE]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published."""
        fetch(URL, FILE, folder)

    def read(self, root: Path) -> Splits:
        """Read pixels (packing them as they are decompressed) and factors; nothing pickled is opened."""
        path = root / FILE.path
        content = read_verified(root, FILE)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                x = _read_packed(archive)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                factors = arrays["latents_classes"].astype(np.int64)
        except _CODEC_ERRORS as error:
            raise damaged(path, f"not the dSprites archive ({type(error).__name__}: {error})") from error
        y = torch.from_numpy(factors)
        images = as_images(self, path, torch.from_numpy(x).unsqueeze(1), y)
        permutation = split_permutation(path, len(images.x), self.test_size, "dsprites test split")
        test, train = permutation[: self.test_size], permutation[self.test_size :]
        train, test = (Images(images.x.index_select(0, rows), y.index_select(0, rows)) for rows in (train, test))
        return Splits(train, test)


def _read_packed(archive: zipfile.ZipFile) -> np.ndarray:
    """The member ``imgs`` (N, 64, 64) of zeros and ones as (N, 64, 8), never whole in memory."""
    _, height, width = DSprites.shape
    with archive.open("imgs.npy") as stream:
        n_rows, blocks = stream_rows(stream, "imgs", (height, width), _ROWS_AT_ONCE)
        packed, stop = np.empty((n_rows, height, width // 8), np.uint8), 0
        for pixels in blocks:
            if pixels.max() > 1:
                raise ValueError("imgs holds values other than 0 and 1")
            start, stop = stop, stop + len(pixels)
            packed[start:stop] = np.packbits(pixels, axis=-1)
    return packed
