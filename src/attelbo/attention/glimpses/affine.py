"""Spatial transformers with scale and translation only: a square patch is cut out of an image, or pasted onto a canvas,
by bilinear interpolation.

Jaderberg et al. 2015, "Spatial Transformer Networks", arXiv:1506.02025, section 3 and eq. 2.

Shapes: N rows, C channels, H x W pixels, n x n of a patch. A place (N, 3) is a size and a center, across and down:
sizes are shares of the image's sides, and -1 .. 1 are the edges of the image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cut_patch(images: Tensor, place: Tensor, n: int) -> Tensor:
    """What is at a place of images (N, C, H, W), as n x n pixels: (N, C, n, n); zeros outside of the image."""
    return _resample(images, place[:, :1], place[:, 1:], (n, n))


def paste_patch(patches: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Canvases (N, C, H, W) of a size (H, W) with patches (N, C, n, n) at their places, zeros elsewhere: what
    ``cut_patch`` undoes."""
    scale = 1 / place[:, :1]
    return _resample(patches, scale, -place[:, 1:] * scale, size)


def _resample(source: Tensor, scale: Tensor, shift: Tensor, size: tuple[int, int]) -> Tensor:
    """Each pixel of the result, at g in -1 .. 1, is the source's at scale g + shift, (N, 1) and (N, 2)."""
    down, across = (_centers(length, source) for length in size)
    x = scale * across + shift[:, :1]  # (N, W)
    y = scale * down + shift[:, 1:]  # (N, H)
    grid = torch.stack([x.unsqueeze(1).expand(-1, size[0], -1), y.unsqueeze(2).expand(-1, -1, size[1])], -1)
    return F.grid_sample(source, grid.to(source.dtype), align_corners=False)


def _centers(n: int, like: Tensor) -> Tensor:
    """Of n pixels between -1 and 1."""
    return (torch.arange(n, dtype=torch.float32, device=like.device) * 2 + 1) / n - 1


def box_of(place: Tensor, size: tuple[int, int]) -> Tensor:
    """Top, left, bottom, right of places (N, 3) on images of a size (H, W), (N, 4), in pixels whose first one is
    centered at 0."""
    reach, x, y = place.unbind(1)
    height, width = size
    edges = [(y - reach, height), (x - reach, width), (y + reach, height), (x + reach, width)]
    return torch.stack([0.5 * (edge + 1) * length - 0.5 for edge, length in edges], 1)
