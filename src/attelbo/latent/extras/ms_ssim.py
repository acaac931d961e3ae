"""Multi-scale structural similarity (Wang, Simoncelli & Bovik 2003, "Multi-scale Structural Similarity for Image
Quality Assessment", eq. 7; as a loss: Zhao, Gallo, Frosio & Kautz 2017, arXiv:1511.08861).

Shapes: N images (C, H, W) with values in [0, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.checks import check_not_negative
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.extras.base import Extra

WINDOW, STD = 11, 1.5
"""Of the Gaussian in the paper, in pixels."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Their exponents in the paper; each scale is half as large as the one before."""
C1, C2 = 0.01**2, 0.03**2
LEAST = 1e-6
"""Below it a similarity is not raised to a power: it may be negative, and at zero the gradient is infinite."""


class MSSSIM(Extra):
    """weight * (1 - MS-SSIM(x, E[x|z])), with as many of the five scales as have room for the window.

    Windows lie inside the image, as in the authors' code. Differs from the paper where images are small: the exponents
    of the scales in use are normalized to add up to 1, and an image smaller than the window of 11 pixels gets the
    largest odd window that fits, its Gaussian scaled accordingly.

    Args:
        data_shape: (C, H, W).
        weight: of the distance, which lies between 0 and 1, relative to a reconstruction in nats.

    Raises:
        ValueError: not an image of at least 3 pixels each way, or a negative or infinite weight.
    """

    of_unit_range = True
    exponents: Tensor

    def __init__(self, data_shape: Sequence[int], weight: float = 10.0) -> None:
        super().__init__()
        check_not_negative(weight=weight)
        if len(data_shape) != 3 or min(data_shape[1:]) < 3:
            raise ValueError(
                f"data_shape must be (channels, height, width), 3 pixels at least, got {tuple(data_shape)}"
            )
        self.weight = weight
        shorter = min(data_shape[1:])
        width = min(WINDOW, shorter - 1 + shorter % 2)
        offsets = torch.arange(width) - width // 2
        gaussian = (-0.5 * (offsets * WINDOW / (width * STD)) ** 2).exp()
        exponents = torch.tensor([e for scale, e in enumerate(SCALES) if shorter // 2**scale >= width])
        self.register_buffer("exponents", exponents / exponents.sum(), persistent=False)
        for scale in range(len(exponents)):
            for side, size in zip(("rows", "columns"), data_shape[1:], strict=True):
                self.register_buffer(f"{side}{scale}", _sliding(gaussian, size // 2**scale), persistent=False)

    def distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        return 1 - self.similarity(full_precision(x), full_precision(reconstruction))

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """MS-SSIM of x and y (N, C, H, W), (N,), at most 1."""
        factors: list[Tensor] = []
        last = len(self.exponents) - 1
        for scale in range(last + 1):
            luminance, contrast = self._compare(x, y, scale)
            factors.append((luminance * contrast if scale == last else contrast).flatten(1).mean(1))
            x, y = (F.avg_pool2d(images, 2) if scale < last else images for images in (x, y))
        # torch's prod would synchronize to look for zeros, of which there are none.
        return (torch.stack(factors, 1).clamp(min=LEAST).log() @ self.get_buffer("exponents")).exp()

    def _compare(self, x: Tensor, y: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """The luminance term, and the product of contrast and structure terms, of each window inside the image."""
        rows, columns = self.get_buffer(f"rows{scale}"), self.get_buffer(f"columns{scale}")
        moments = torch.stack([x, y, x * x, y * y, x * y])  # (5, N, C, H, W)
        # As products: a CPU is slow at convolutions of one channel. Autocast would round the variances away.
        with torch.autocast(x.device.type, enabled=False):
            mean_x, mean_y, xx, yy, xy = rows @ moments @ columns.mT
        both = mean_x * mean_y
        squares = mean_x.square() + mean_y.square()
        luminance = (2 * both + C1) / (squares + C1)
        return luminance, (2 * (xy - both) + C2) / (xx + yy - squares + C2)


def _sliding(window: Tensor, size: int) -> Tensor:
    """The matrix that takes the window's mean at every place in ``size`` pixels where it lies inside."""
    places = size - len(window) + 1
    matrix = torch.zeros(places, size)
    for place in range(places):
        matrix[place, place : place + len(window)] = window / window.sum()
    return matrix
