"""Windows of n x n Gaussian filters, which read from an image or write onto it; five parameters set their center,
stride, variance and intensity.

Gregor et al. 2015, "DRAW: A Recurrent Neural Network For Image Generation", arXiv:1502.04623, section 3.2, eq. 19-29.

Ours differs: pixels are counted from 0; a row of a filter bank is normalized as a softmax, so that a filter far outside
the image does not divide zero by zero; for n = 1, where the paper divides by zero, nothing depends on the stride.

Shapes: N rows, C channels, H x W pixels, n x n filters.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attelbo.attention.precision import full_precision

N_PARAMETERS = 5
"""Of a window: center across and down, log variance, log stride, log intensity."""
LOG_STRIDE, LOG_INTENSITY = 3, 4
"""Places among them."""
LOG_BOUND = 10.0
"""The three logarithms are clamped to [-10, 10]: beyond, their exponentials would be of no use, or overflow."""


class GaussianWindow(NamedTuple):
    """Where N windows are, in pixels counted from 0, and their filters."""

    rows: Tensor
    """F_Y, (N, n, H): each filter sums to one."""
    columns: Tensor
    """F_X, (N, n, W)."""
    intensity: Tensor
    """gamma, (N,)."""
    center: Tensor
    """Down and across, (N, 2)."""
    stride: Tensor
    """Between neighbouring filters, (N,)."""

    def read(self, images: Tensor) -> Tensor:
        """gamma F_Y x F_X^T of images (N, C, H, W): (N, C, n, n); eq. 27."""
        patches = self.rows.unsqueeze(1) @ images @ self.columns.mT.unsqueeze(1)
        return self.intensity.view(-1, 1, 1, 1) * patches

    def write(self, patches: Tensor) -> Tensor:
        """F_Y^T w F_X / gamma of patches (N, C, n, n): (N, C, H, W); eq. 29."""
        images = self.rows.mT.unsqueeze(1) @ patches @ self.columns.unsqueeze(1)
        return images / self.intensity.view(-1, 1, 1, 1)

    @property
    def box(self) -> Tensor:
        """Top, left, bottom, right of the centers of the outermost filters, (N, 4)."""
        reach = (0.5 * (self.rows.shape[1] - 1) * self.stride).unsqueeze(1)
        return torch.cat([self.center - reach, self.center + reach], 1)


def gaussian_window(parameters: Tensor, n: int, size: tuple[int, int]) -> GaussianWindow:
    """The windows of n x n filters on images of a size (H, W) that parameters (N, 5) stand for (eq. 21-26).

    Parameters of zeros: in the middle, over the whole image, variance and intensity one.
    """
    across, down, *logarithms = full_precision(parameters).unbind(1)
    variance, stride, intensity = torch.stack(logarithms).clamp(-LOG_BOUND, LOG_BOUND).exp().unbind()
    height, width = size
    stride = stride * (max(size) - 1) / max(n - 1, 1)
    center = torch.stack([_place(down, height), _place(across, width)], 1)
    offsets = torch.arange(n, device=stride.device) - 0.5 * (n - 1)
    reached = offsets * stride.unsqueeze(1)  # (N, n)
    rows, columns = (
        _filters(center[:, dim : dim + 1] + reached, variance, length) for dim, length in enumerate((height, width))
    )
    return GaussianWindow(rows, columns, intensity, center, stride)


def _place(relative: Tensor, length: int) -> Tensor:
    """From -1 .. 1 to one pixel before the first .. one after the last (eq. 22-23)."""
    return 0.5 * (length + 1) * (relative + 1) - 1


def _filters(means: Tensor, variance: Tensor, length: int) -> Tensor:
    """Normalized filters (N, n, length) around means (N, n) (eq. 25-26)."""
    pixels = torch.arange(length, device=means.device)
    distance = (pixels - means.unsqueeze(2)).square()
    return torch.softmax(-0.5 * distance / variance.view(-1, 1, 1), -1)
