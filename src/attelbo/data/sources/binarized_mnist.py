"""MNIST, binarized once and for all: the draw of Larochelle & Murray 2011 that papers on static binarization share.

    each line of binarized_mnist_{train,valid,test}.amat: 784 zeros and ones between spaces

It cannot be made from MNIST again: another draw is another data set, about as different as another binarization. The
images come in an order of their own, and without labels.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attelbo.data.files import DataFile
from attelbo.data.sources.base import FileSource, Images, Splits, as_images, damaged, read_verified

_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
_MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}
_ZERO, _SPACE, _NEWLINE = b"0 \n"


class BinarizedMNIST(FileSource):
    """Static binarization of MNIST, 50,000 + 10,000 + 10,000 (Larochelle & Murray 2011)."""

    shape = (1, 28, 28)
    n_classes = None
    binary = True
    n_validation = 10_000

    def download(self, folder: Path, root: Path) -> None:
        """From where they were published."""
        self.fetch_missing(_URL, folder, root)

    def read(self, root: Path) -> Splits:
        """Read the three files; the training rows end with those for validation."""
        train, valid, test = (_read_amat(root, file) for file in self.files())
        if len(valid) != self.n_validation:
            raise damaged(root / self.files()[1].path, f"{len(valid):,} images, not {self.n_validation:,}")
        return Splits(*(self._images(root, x) for x in (torch.cat([train, valid]), test)))

    def _images(self, root: Path, x: Tensor) -> Images:
        return as_images(self, root / self.files()[0].path, x, None)

    def files(self) -> list[DataFile]:
        """Training, validation and test."""
        return [DataFile(f"binarized_mnist/binarized_mnist_{split}.amat", md5) for split, md5 in _MD5.items()]


def _read_amat(root: Path, file: DataFile) -> Tensor:
    """(N, 1, 28, 28) uint8 zeros and ones."""
    signs = np.frombuffer(read_verified(root, file), np.uint8)
    if len(signs) == 0 or len(signs) % (2 * 784):
        raise damaged(root / file.path, f"its lines are no 784 zeros and ones ({len(signs):,} bytes)")
    pixels, between = signs.reshape(-1, 784, 2).transpose(2, 0, 1)
    if (pixels - _ZERO > 1).any() or (between[:, :-1] != _SPACE).any() or (between[:, -1] != _NEWLINE).any():
        raise damaged(root / file.path, "its lines are no 784 zeros and ones")
    return torch.from_numpy(pixels - _ZERO).view(-1, 1, 28, 28)
