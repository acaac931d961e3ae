"""Pictures of one's own: whatever a folder holds, made square and of one size.

Decoded once, before training, in as many threads as there are cores.

Shapes: N pictures.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.sources.base import EMBEDDED, Images, ImageSource, Splits
from attelbo.errors import DataError, one_line

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_TEST_EVERY = 10


class ImageFolder(ImageSource):
    """The pictures below a folder (PNG, JPEG, WebP, TIFF, BMP, GIF), the middle of each resized to a square.

    Every tenth, of each class in the order of their names, is for testing.

    Args:
        path: where they are, named from the folder of data sets or absolutely.
        size: pixels on a side.
        channels: 1 for grey levels, 3 for colours.
        n_classes: the pictures lie in so many folders, each a class, numbered in the order of their names; None: no
            classes, and the folders inside mean nothing.

    Raises:
        ValueError: size or n_classes is out of range.
    """

    def __init__(self, path: str, size: int = 64, channels: Literal[1, 3] = 3, n_classes: int | None = None) -> None:
        check_at_least(1, size=size)
        if n_classes is not None and n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, or null, got {n_classes}")
        self.path = path
        self.shape = (channels, size, size)
        self.n_classes = n_classes

    def load(self, root: Path) -> Splits:
        """Find and decode all of them; see :meth:`ImageSource.load`."""
        folder = root / self.path
        if not folder.is_dir():
            raise DataError(
                f"{folder.absolute()}: no such folder of pictures; data.source.path says which, from paths.data_dir or "
                "absolutely"
            )
        classes = [pictures_in(inside) for inside in self._folders(folder)]
        ranked = [(label, place, file) for label, files in enumerate(classes) for place, file in enumerate(files)]
        parts = [
            [row for row in ranked if (row[1] % _TEST_EVERY == _TEST_EVERY - 1) is tested] for tested in (False, True)
        ]
        if not all(parts):
            raise DataError(
                f"{folder.absolute()} holds {len(ranked)} pictures ({', '.join(sorted(_SUFFIXES))}): too few to keep "
                f"every tenth for testing; {EMBEDDED}"
            )
        return Splits(*map(self._images, parts))

    def _folders(self, folder: Path) -> list[Path]:
        """One for each class, or the one of all."""
        if self.n_classes is None:
            return [folder]
        found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if len(found) != self.n_classes:
            raise DataError(
                f"{folder.absolute()} holds {len(found)} folders, one for each class, but data.source.n_classes is "
                f"{self.n_classes}; null is for pictures without classes"
            )
        return found

    def _images(self, rows: Sequence[tuple[int, int, Path]]) -> Images:
        labels = None if self.n_classes is None else torch.tensor([label for label, *_ in rows])
        return Images(decode_pictures([file for *_, file in rows], self.shape), labels)


def decode_pictures(files: Sequence[Path], shape: tuple[int, int, int]) -> Tensor:
    """The middle of each picture in this shape (C, H, W), C 1 or 3: (n, C, H, W), uint8.

    Raises:
        DataError: a file is no picture, or has more than 8 bits for each pixel.
    """
    channels, height, width = shape
    decode = partial(_decode, mode="L" if channels == 1 else "RGB", size=(width, height))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        x = torch.from_numpy(np.stack(list(threads.map(decode, files))))
    return x.view(len(files), height, width, channels).permute(0, 3, 1, 2).contiguous()


def pictures_in(folder: Path) -> list[Path]:
    """The pictures below a folder, in the order of their names; hidden files are none."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def _decode(file: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8, of this width and height."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file.absolute()} has more than 8 bits for each pixel; attelbo's images have 8")
            upright = ImageOps.exif_transpose(image).convert(mode)
            return np.asarray(ImageOps.fit(upright, size, Image.Resampling.BILINEAR))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file.absolute()} is no picture ({one_line(error)}); leave it out") from error
