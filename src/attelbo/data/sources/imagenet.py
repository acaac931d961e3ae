"""ImageNet at 32 or 64 pixels (Chrabaszcz, Loshchilov & Hutter 2017, arXiv:1707.08819), as image-net.org has it today.

Differs from the images of the same sizes of van den Oord et al. 2016 ("Pixel recurrent neural networks"), which are no
longer distributed: those were resized otherwise, so that bits/dim of papers that used them are of other images.

The archives are checked by the CRC-32 sums in them, and by type, shape and number of images: what MD5 sums are found of
them contradict each other.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attelbo.data.files import DataFile, fetch
from attelbo.data.sources.base import FileSource, Images, Splits, as_images, damaged
from attelbo.errors import one_line

URL = "https://image-net.org/data/downsample"
N_TRAIN, N_TEST = 1_281_167, 50_000

_CODEC_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, RuntimeError)


class ImageNet(FileSource):
    """Photographs in 1,000 classes, 1,281,167 + 50,000, the published validation images being those to test on.

    3.9 GB in memory at 32 pixels, 15.7 GB at 64.

    Args:
        size: 32 or 64 pixels to a side.

    Raises:
        ValueError: another size.
    """

    n_classes = 1000
    gives_away = True

    def __init__(self, size: Literal[32, 64] = 32) -> None:
        if size not in (32, 64):
            raise ValueError(f"size must be 32 or 64, got {size}")
        self.shape = (3, size, size)

    def files(self) -> list[DataFile]:
        """All archives."""
        return [file for files in self._archives() for file in files]

    def download(self, folder: Path, root: Path) -> None:
        """From where they are published; what is in ``root`` is not downloaded again."""
        for file in self.missing(root):
            name = Path(file.path).name
            fetch(f"{URL}/{name}", file, folder)
            if not zipfile.is_zipfile(folder / file.path):
                raise RuntimeError(f"{URL}/{name} is a page, no archive: it may have to be downloaded with an account")

    def read(self, root: Path) -> Splits:
        """Read the archives, each image straight to its place."""
        train, test = self._archives()
        return Splits(self._images(root, train, N_TRAIN), self._images(root, test, N_TEST))

    def _archives(self) -> tuple[list[DataFile], list[DataFile]]:
        """Those to train and to test on."""
        size = self.shape[-1]
        parts = ["train"] if size == 32 else ["train_part1", "train_part2"]
        train, test = (
            [DataFile(f"imagenet{size}/Imagenet{size}_{part}_npz.zip", None) for part in some]
            for some in (parts, ["val"])
        )
        return train, test

    def _images(self, root: Path, files: list[DataFile], n: int) -> Images:
        x, y, stop = torch.empty(n, *self.shape, dtype=torch.uint8), torch.empty(n, dtype=torch.int64), 0
        for file in files:
            path = root / file.path
            try:
                for pixels, labels in _batches(path):
                    start, stop = stop, stop + len(pixels)
                    x[start:stop] = pixels.view(-1, *self.shape)
                    y[start:stop] = labels - 1
            except _CODEC_ERRORS as error:
                raise damaged(
                    path, f"not an archive of ImageNet ({type(error).__name__}: {one_line(error)})"
                ) from error
        path = root / files[-1].path
        if stop != n:
            raise damaged(path, f"{stop:,} images up to its end, not {n:,}")
        return as_images(self, path, x, y)


def _batches(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels (b, 3 size^2) and labels (b,), from 1, of the batches in an archive, in the order of their numbers."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npz")]
        for name in sorted(names, key=lambda name: [int(digits) for digits in re.findall(r"\d+", Path(name).name)]):
            with np.load(io.BytesIO(archive.read(name)), allow_pickle=False) as batch:
                pixels, labels = batch["data"], batch["labels"]
            if pixels.dtype != np.uint8 or pixels.ndim != 2 or len(labels) != len(pixels):
                raise ValueError(f"{name}: data is {pixels.dtype} of shape {pixels.shape}, labels {labels.shape}")
            yield torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))
