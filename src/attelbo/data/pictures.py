"""Files of pictures to one array, decoded in as many threads as there are cores.

Shapes: n pictures.
"""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attelbo.data.kept import kept
from attelbo.errors import DataError, one_line

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
