"""Images of bytes at another size.

Shapes: N images.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def resized(images: NDArray[np.uint8], shape: Sequence[int]) -> Tensor:
    """Images (N, h, w) or (N, h, w, 3) in this shape (C, H, W), by Pillow's Lanczos filter: (N, C, H, W), uint8."""
    channels, height, width = shape
    x = np.empty((len(images), channels, height, width), np.uint8)
    for place, pixels in enumerate(images):
        picture = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
        x[place] = picture.reshape(height, width, channels).transpose(2, 0, 1)
    return torch.from_numpy(x)
