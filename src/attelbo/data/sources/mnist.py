"""MNIST and the sets that share its file format (idx, LeCun, Cortes & Burges 1998), in torchvision's layout.

The published MD5 sums are those of the gzip files, so these are read where they are present (about 0.3 s);
torchvision's extracted files are read where they are alone, checked by their own header.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attelbo.data.files import DataFile
from attelbo.data.sources.base import (
    FileSource,
    Images,
    Splits,
    as_images,
    damaged,
    read_verified,
)

_UNSIGNED_BYTE = 8  # the type code in an idx header


class MNIST(FileSource):
    """Handwritten digits, 60,000 + 10,000 (LeCun, Cortes & Burges 1998)."""

    shape = (1, 28, 28)
    n_classes = 10

    def is_there(self, root: Path, file: DataFile) -> bool:
        """As gzip or extracted."""
        return super().is_there(root, file) or (root / file.path).with_suffix("").is_file()

    def download(self, folder: Path, root: Path) -> None:
        """By the torchvision class of the same name."""
        from torchvision import datasets  # slow to import

        getattr(datasets, type(self).__name__)(folder, download=True)

    def read(self, root: Path) -> Splits:
        """Read the four files."""
        train_x, train_y, test_x, test_y = self.files()
        return Splits(self._read_pair(root, train_x, train_y), self._read_pair(root, test_x, test_y))

    def files(self) -> list[DataFile]:
        """Train images, train labels, test images, test labels."""
        from torchvision import datasets  # slow to import

        name = type(self).__name__
        return [DataFile(f"{name}/raw/{file}", md5) for file, md5 in getattr(datasets, name).resources]

    def _read_pair(self, root: Path, images: DataFile, labels: DataFile) -> Images:
        x, y = _read_idx(root, images), _read_idx(root, labels)
        return as_images(self, root / images.path, x.unsqueeze(1), y.long())


class FashionMNIST(MNIST):
    """Articles of clothing, 60,000 + 10,000 (Xiao, Rasul & Vollgraf 2017)."""


class KMNIST(MNIST):
    """Cursive Japanese characters, Kuzushiji-MNIST, 60,000 + 10,000 (Clanuwat et al. 2018)."""


def _read_idx(root: Path, file: DataFile) -> Tensor:
    """The array in an idx file of bytes, from the gzip file or else the extracted one."""
    path = root / file.path
    if path.is_file():
        try:
            content = gzip.decompress(read_verified(root, file))
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, f"not a whole gzip file ({error})") from error
    else:
        path = path.with_suffix("")
        content = read_verified(root, DataFile(str(path.relative_to(root)), None))
    if len(content) < 4 or content[0] != 0 or content[1] != 0 or content[2] != _UNSIGNED_BYTE:
        raise damaged(path, "no idx header of unsigned bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise damaged(path, f"cut off in its header, after {len(content)} bytes")
    shape = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
    if len(content) != start + math.prod(shape):
        raise damaged(path, f"its header promises {start + math.prod(shape):,} bytes, it has {len(content):,}")
    # copied, since torch asks for memory that may be written
    return torch.from_numpy(np.frombuffer(content, np.uint8)[start:].reshape(shape).copy())
