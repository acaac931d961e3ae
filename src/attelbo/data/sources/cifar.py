"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official python batches, in torchvision's layout.

The batches are pickles. Their MD5 sums are checked first, and even then nothing but numpy arrays and
plain containers is unpickled.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attelbo.data.files import DataFile
from attelbo.data.sources.base import FileSource, Images, Splits, as_images, concatenated, damaged, read_verified

_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class CIFAR10(FileSource):
    """Colour photographs in 10 classes, 50,000 + 10,000 (Krizhevsky 2009)."""

    shape = (3, 32, 32)
    n_classes = 10
    label_key = "labels"

    def files(self) -> list[DataFile]:
        """All batches."""
        return [file for files in self._batches() for file in files]

    def download(self, folder: Path, root: Path) -> None:
        """By the torchvision class of the same name; an archive that lies in ``root`` is not downloaded again."""
        published = self._published()
        archive = DataFile(published.filename, published.tgz_md5)
        if (root / archive.path).is_file():
            read_verified(root, archive)
            (folder / archive.path).symlink_to((root / archive.path).absolute())
        published(folder, download=True)

    def read(self, root: Path) -> Splits:
        """Read the batches."""
        train, test = ([self._read_batch(root, file) for file in files] for files in self._batches())
        return Splits(concatenated(train), concatenated(test))

    def _published(self) -> Any:
        from torchvision import datasets  # slow to import

        return getattr(datasets, type(self).__name__)

    def _batches(self) -> tuple[list[DataFile], list[DataFile]]:
        """Training batches and test batches."""
        published = self._published()
        train, test = (
            [DataFile(f"{published.base_folder}/{name}", md5) for name, md5 in files]
            for files in (published.train_list, published.test_list)
        )
        return train, test

    def _read_batch(self, root: Path, file: DataFile) -> Images:
        path = root / file.path
        content = read_verified(root, file)
        try:
            entry = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
            pixels = np.asarray(entry["data"]).reshape(-1, *self.shape)
            y = torch.tensor(entry[self.label_key], dtype=torch.int64)
        except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError) as error:
            raise damaged(path, f"not a CIFAR batch ({type(error).__name__}: {error})") from error
        return as_images(self, path, torch.from_numpy(np.ascontiguousarray(pixels)), y)


class CIFAR100(CIFAR10):
    """Colour photographs in 100 fine classes, 50,000 + 10,000 (Krizhevsky 2009)."""

    n_classes = 100
    label_key = "fine_labels"


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses everything but numpy arrays (plain containers need no class)."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ARRAY_PARTS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array") from None
