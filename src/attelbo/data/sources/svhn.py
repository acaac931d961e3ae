"""SVHN (Netzer et al. 2011): the digits of house numbers, cropped, in torchvision's files.

MATLAB files, in which a digit 0 has the label 10; here it has the label 0.
"""

import io
import zlib
from pathlib import Path
from typing import Literal

import torch

from attelbo.data.files import DataFile, fetch
from attelbo.data.sources.base import FileSource, Images, Splits, as_images, concatenated, damaged, read_verified
from attelbo.errors import one_line

Part = Literal["train", "test", "extra"]

_CODEC_ERRORS = (OSError, EOFError, zlib.error, LookupError, ValueError, TypeError, RuntimeError)


class SVHN(FileSource):
    """Digits of house numbers, 73,257 + 26,032 (Netzer et al. 2011).

    Args:
        extra: train on the 531,131 that are easier too.
    """

    shape = (3, 32, 32)
    n_classes = 10

    def __init__(self, extra: bool = False) -> None:
        self.extra = extra

    def files(self) -> list[DataFile]:
        """One for each part."""
        return [self._file(part) for part in self._parts]

    def download(self, folder: Path, root: Path) -> None:
        """From where they were published; what is in ``root`` is not downloaded again."""
        from torchvision import datasets  # slow to import

        missing = self.missing(root)
        for part in self._parts:
            if (file := self._file(part)) in missing:
                fetch(datasets.SVHN.split_list[part][0], file, folder)

    def read(self, root: Path) -> Splits:
        """Read the files."""
        train, test, *more = (self._read_part(root, self._file(part)) for part in self._parts)
        return Splits(concatenated([train, *more]), test)

    @property
    def _parts(self) -> tuple[Part, ...]:
        return ("train", "test", "extra") if self.extra else ("train", "test")

    @staticmethod
    def _file(part: Part) -> DataFile:
        from torchvision import datasets  # slow to import

        _, name, md5 = datasets.SVHN.split_list[part]
        return DataFile(f"svhn/{name}", md5)

    def _read_part(self, root: Path, file: DataFile) -> Images:
        from scipy.io import loadmat  # slow to import

        path, content = root / file.path, read_verified(root, file)
        try:
            arrays = loadmat(io.BytesIO(content))
            x = torch.from_numpy(arrays["X"]).permute(3, 2, 0, 1).contiguous()
            y = torch.from_numpy(arrays["y"]).long().squeeze(1) % 10
        except _CODEC_ERRORS as error:
            raise damaged(path, f"not a file of SVHN ({type(error).__name__}: {one_line(error)})") from error
        return as_images(self, path, x, y)
