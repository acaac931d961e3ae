"""Files of pictures to one array, decoded in as many threads as there are cores.

Shapes: n pictures.
"""

import os
import re
import struct
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import PIL
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from attelbo.data.kept import kept
from attelbo.errors import DataError, one_line

_UPRIGHT: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By Exif's orientation."""
# A broken PNG is a SyntaxError; what is wrong in the data of a camera, such as Exif, may be any of the others.
_WRONG = (
    *(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
    *(ArithmeticError, LookupError, TypeError, struct.error),
)
_DEEP = re.compile(";16[BLN]")
"""In what Pillow calls the colors of a file with 16 bits each, of which it keeps 8: RGB;16B, say. BGR;16 has 5 or 6."""
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def decoded_once(root: Path, files: Sequence[Path], shape: Sequence[int], crop: int | None = None) -> Tensor:
    """As :func:`decode_pictures`; what took long is kept below ``root`` while the files have the same names, sizes and
    times."""
    try:
        of_files = [(str(file.absolute()), (now := file.stat()).st_size, now.st_mtime_ns) for file in files]
    except OSError:  # a file that is gone
        return decode_pictures(files, shape, crop)  # which names it
    about = (PIL.__version__, tuple(shape), crop, of_files)
    pixels = kept(root, about, decode_pictures, lambda: decode_pictures(files, shape, crop).numpy())
    return torch.from_numpy(pixels)


def decode_pictures(files: Sequence[Path], shape: Sequence[int], crop: int | None = None) -> Tensor:
    """The middle of each picture in this shape (C, H, W), C 1 or 3: (n, C, H, W), uint8.

    Raises:
        DataError: a file is not a picture, has more than 8 bits per channel, or is smaller than the crop.
    """
    channels, height, width = shape
    x = np.empty((len(files), channels, height, width), np.uint8)

    def fill(place: int) -> None:
        picture = _decode(files[place], "L" if channels == 1 else "RGB", (width, height), crop)
        x[place] = picture.reshape(height, width, channels).transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        deque(threads.map(fill, range(len(files))), maxlen=0)  # what goes wrong in a thread is raised here
    return torch.from_numpy(x)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures below a folder, in the order of their names, without what is hidden or in a hidden folder. Links to
    folders elsewhere are followed; no folder is read twice.

    Raises:
        DataError: a folder cannot be read.
    """
    root = folder.resolve()
    seen = {_identity(folder)}

    def is_new(path: Path) -> bool:
        if path.name.startswith("."):
            return False
        if path.is_symlink():
            target = path.resolve()
            if target.is_relative_to(root) or root.is_relative_to(target):
                return False  # it is found in its own place, or is what was begun in: a loop
        known = len(seen)
        seen.add(_identity(path))
        return len(seen) > known

    files: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        folders[:] = [name for name in sorted(folders) if is_new(Path(place, name))]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, in the order of their names.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        _unreadable(error)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        _unreadable(error)
    return status.st_dev, status.st_ino


def _unreadable(error: OSError) -> NoReturn:
    """Raise what is told of a folder that cannot be read."""
    raise DataError(
        f"{Path(error.filename).absolute()} cannot be read ({one_line(error)}): its pictures would be left out"
    ) from error


def _decode(file: Path, mode: str, size: tuple[int, int], crop: int | None) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8, of this width and height."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")) or _DEEP.search(str(image.tile)):
                raise DataError(
                    f"{file.absolute()} has more than 8 bits per channel; attelbo's images have 8: save it with as many"
                )
            # Not ImageOps.exif_transpose, which writes all Exif data anew and fails where a camera wrote others wrong.
            turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
            upright = (image if turn is None else image.transpose(turn)).convert(mode)
            if crop is not None:
                upright = _middle(file, upright, crop)
            return np.asarray(ImageOps.fit(upright, size, Image.Resampling.BILINEAR))
    except _WRONG as error:
        raise DataError(f"{file.absolute()} is no picture ({one_line(error)}); leave it out") from error


def _middle(file: Path, image: Image.Image, crop: int) -> Image.Image:
    """The square in the middle; where that is between two pixels, as torchvision's CenterCrop has it."""
    if min(image.size) < crop:
        raise DataError(
            f"{file.absolute()} has {image.width} x {image.height} pixels, fewer than data.source.crop={crop}"
        )
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))
