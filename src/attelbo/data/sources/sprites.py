"""Sprites: a small dSprites that is drawn, not downloaded, for experiments on factors of variation.

After dSprites (Matthey, Higgins, Hassabis & Lerchner 2017): a white shape on black, every combination of the factors
once. Ours is smaller, 24,576 images in about a second, and differs in one respect: none of the shapes looks the same
after a turn, so every combination is another picture and every factor can be read off it. The square and the ellipse
of dSprites repeat themselves, so their orientation cannot be known.

Shapes: N images, size pixels to a side, F = 5 factors, A combinations of shape, scale and orientation.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from attelbo.data.module import fixed_generator
from attelbo.data.sources.base import Factor, Images, ImageSource, Splits

SHAPES = ("triangle", "half disc", "heart")
N_SCALES, N_ORIENTATIONS, N_PLACES = 4, 8, 16
RADII = (0.12, 0.21)
"""Of the circles around the smallest and the largest sprite, in widths of the image."""
PLACES = (0.2301, 0.7699)
"""The first and the last place of its centre, along either side."""


class Sprites(ImageSource):
    """Sprites of ``size`` x ``size`` pixels, 0 or 1; y holds the classes of shape, scale, orientation, x and y.

    The test rows are the first ``test_size`` of a fixed permutation.

    Raises:
        ValueError: a size that is no multiple of 8 or below 32, where sprites would coincide, or a test set that is
            empty or leaves nothing to train on.
    """

    n_classes = None
    binary = True
    packed = True
    factors = (
        Factor("shape", len(SHAPES), ordered=False),
        Factor("scale", N_SCALES),
        Factor("orientation", N_ORIENTATIONS),
        Factor("x", N_PLACES),
        Factor("y", N_PLACES),
    )
    n_rows = math.prod(factor.n_values for factor in factors)

    def __init__(self, size: int = 32, test_size: int = 4096) -> None:
        if size < 32 or size % 8:
            raise ValueError(f"size must be a multiple of 8 and at least 32, got {size}")
        if not 1 <= test_size < self.n_rows:
            raise ValueError(f"test_size must be in 1..{self.n_rows - 1}, got {test_size}")
        self.shape = (1, size, size)
        self.test_size = test_size

    def load(self, root: Path) -> Splits:
        """Drawn anew each time; ``root`` is not used."""
        factors = torch.cartesian_prod(*(torch.arange(factor.n_values) for factor in self.factors))  # (N, F)
        # All places of one sprite at a time: memory stays at a few megabytes.
        sprites = factors[:: N_PLACES**2, :3]  # (A, 3)
        parts = [draw(shape, scale, turn, self.shape[1]) for shape, scale, turn in sprites.tolist()]
        x = torch.cat(parts)  # (N, size, size / 8)
        permutation = torch.randperm(len(x), generator=fixed_generator("sprites"))
        x, factors = x.unsqueeze(1)[permutation], factors[permutation]
        test, train = (Images(x[rows], factors[rows]) for rows in (slice(self.test_size), slice(self.test_size, None)))
        return Splits(train, test)


def draw(shape: int, scale: int, orientation: int, size: int) -> Tensor:
    """One sprite at every place, x outermost: (N_PLACES^2, size, size / 8), eight pixels in a byte."""
    pixels = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    centers = torch.linspace(*PLACES, N_PLACES, dtype=torch.float64)
    radius = torch.linspace(*RADII, N_SCALES, dtype=torch.float64)[scale]
    offset = (pixels - centers.unsqueeze(1)) / radius  # (places, size), in radii of the sprite
    right, up = offset[:, None, None, :], -offset[None, :, :, None]  # rows of an image run downwards
    angle = 2 * math.pi * orientation / N_ORIENTATIONS
    u, v = math.cos(angle) * right + math.sin(angle) * up, math.cos(angle) * up - math.sin(angle) * right
    return pack_bits(_inside(SHAPES[shape], u, v).flatten(0, 1))


def _inside(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """Whether points are in a shape, which lies upright in the unit disc."""
    if shape == "triangle":
        return (v > -0.8) & (u.abs() < (1 - v) / 3)
    if shape == "half disc":
        return (u.square() + (v + 0.4).square() < 0.83) & (v > -0.4)
    u, v = 1.3 * u, 1.3 * v + 0.15  # the heart (u^2 + v^2 - 1)^3 = u^2 v^3, made to fit in the disc
    return (u.square() + v.square() - 1) ** 3 < u.square() * v**3


def pack_bits(pixels: Tensor) -> Tensor:
    """(..., W) booleans to (..., W / 8) bytes, the highest bit first: as ``numpy.packbits``."""
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    return (pixels.unflatten(-1, (-1, 8)) * weights).sum(-1, dtype=torch.uint8)
