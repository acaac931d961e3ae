"""Files of pictures to one array, decoded in as many threads as there are cores.

What takes long is done once: the pixels are kept in a folder beside the data sets, by the names, sizes and times of the
files, so that the next run, or job of a sweep, reads them at the speed of the disk.

Shapes: n pictures.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attelbo.errors import DataError, one_line
from attelbo.files import replacing

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

KEPT = ".decoded"
"""The folder, below that of the data sets."""
LONG = 5.0
"""Seconds of decoding from which the pixels are kept."""


def decoded_once(root: Path, files: Sequence[Path], shape: Sequence[int], crop: int | None = None) -> Tensor:
    """As :func:`decode_pictures`; what took long is kept below ``root``, if that can be written to, and read from there
    while the files are the same."""
    try:
        kept = root / KEPT / f"{_digest(files, shape, crop)}.npy"
    except OSError:  # a file that is gone
        return decode_pictures(files, shape, crop)  # which names it
    try:
        pixels = np.load(kept)
        if pixels.dtype == np.uint8 and pixels.shape == (len(files), *shape):
            return torch.from_numpy(pixels)
    except (OSError, ValueError, EOFError):
        pass  # nothing is kept, or half of it
    start = time.perf_counter()
    x = decode_pictures(files, shape, crop)
    if time.perf_counter() - start > LONG:
        try:
            with replacing(kept) as file:
                np.save(file, x.numpy())
        except OSError:
            pass  # a read-only folder, a full disk: decoded anew next time
    return x


def _digest(files: Sequence[Path], shape: Sequence[int], crop: int | None) -> str:
    """Of all that the pixels depend on; what a file holds is taken to be known by its size and time, as make does."""
    digest = hashlib.sha256(f"{PIL.__version__} {tuple(shape)} {crop}".encode())
    for file in files:
        about = file.stat()
        digest.update(f"\n{file.absolute()} {about.st_size} {about.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


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
    """The pictures below a folder, in the order of their names, without what is hidden or in a hidden folder."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _decode(file: Path, mode: str, size: tuple[int, int], crop: int | None) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8, of this width and height."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file.absolute()} has more than 8 bits per channel; attelbo's images have 8")
            upright = ImageOps.exif_transpose(image).convert(mode)
            if crop is not None:
                upright = _middle(file, upright, crop)
            return np.asarray(ImageOps.fit(upright, size, Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        raise DataError(f"{file.absolute()} is no picture ({one_line(error)}); leave it out") from error


def _middle(file: Path, image: Image.Image, crop: int) -> Image.Image:
    """The square in the middle; where that is between two pixels, as torchvision's CenterCrop has it."""
    if min(image.size) < crop:
        raise DataError(
            f"{file.absolute()} has {image.width} x {image.height} pixels, fewer than data.source.crop={crop}"
        )
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))
