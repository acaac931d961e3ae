"""Scenes of several digits, for models that find objects: none, one, two, ... from another data set, on one canvas.

After the scenes of Eslami et al. 2016, "Attend, Infer, Repeat", arXiv:1603.08575, section 3.1: each number of digits is
equally likely, and none covers another. A model may be asked how many there are (y), and which pixel belongs to which
(segments).

Shapes: M digits (M, 1, h, w), n scenes of size x size pixels, C channels, K the most digits in a scene.
"""

from pathlib import Path

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.module import build_part, fixed_generator
from attelbo.data.sources.base import Images, ImageSource, Splits
from attelbo.errors import ConfigError

INK = 128
"""The smallest byte of a pixel that belongs to a digit, as in binarization at one half."""
_AT_ONCE = 2_000
"""Scenes that are drawn together: a few megabytes."""
_ROUNDS = 1_000
"""Tries to find places, before the canvas is taken to be too small."""


class MultiDigits(ImageSource):
    """Scenes on black; y is the number of digits, a class.

    Digits of the training images make the training scenes, those of the test images the test scenes; both are the same
    in every run. A digit may stand anywhere where its tile lies on the canvas and its strokes touch those of no other.

    Args:
        digits: the data set that they come from, of one channel.
        size: of the canvas, in pixels.
        fewest: digits in a scene.
        most: digits in a scene, K.
        n_train: training scenes.
        n_test: test scenes.
        colored: whether each digit has a color of its own, full and bright; else all are grey.

    Raises:
        ValueError: a number is out of range, or the digits do not fit on the canvas.
    """

    def __init__(
        self,
        digits: Spec,
        size: int = 24,
        fewest: int = 0,
        most: int = 2,
        n_train: int = 10_000,
        n_test: int = 2_000,
        colored: bool = False,
    ) -> None:
        self.digits: ImageSource = build_part("digits", digits)
        if not isinstance(self.digits, ImageSource):
            raise ValueError(f"digits must be an attelbo.data.sources.ImageSource, got {digits!r}")
        channels, *tile = self.digits.shape
        if channels != 1 or self.digits.binary:
            raise ValueError(f"digits must be grey images, got {type(self.digits).__name__}")
        if size < max(tile):
            raise ValueError(f"size must be at least {max(tile)}, that of a digit, got {size}")
        if not 0 <= fewest <= most or most < 1:
            raise ValueError(f"fewest must be in 0..most and most at least 1, got {fewest} and {most}")
        check_at_least(1, n_train=n_train, n_test=n_test)
        self.shape = (3 if colored else 1, size, size)
        self.n_classes = most + 1
        self.n_objects = most
        self.fewest = fewest
        self.most = most
        self.n_train = n_train
        self.n_test = n_test
        self.colored = colored

    def prepare(self, root: Path) -> None:
        """Download the digits."""
        self.digits.prepare(root)

    def load(self, root: Path) -> Splits:
        """Drawn anew each time from the digits in ``root``.

        Raises:
            DataError: the digits are missing or damaged.
            ConfigError: the canvas has no room for so many.
        """
        train, test = self.digits.load(root)
        return Splits(self._scenes(train.x, self.n_train, "train"), self._scenes(test.x, self.n_test, "test"))

    def _scenes(self, digits: Tensor, n: int, split: str) -> Images:
        generator = fixed_generator(f"scenes to {split}")
        parts = [self._draw(digits, min(_AT_ONCE, n - start), generator) for start in range(0, n, _AT_ONCE)]
        x, y, segments = (torch.cat(part) for part in zip(*parts, strict=True))
        return Images(x, y, segments)

    def _draw(self, digits: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """n scenes x (n, C, size, size), their numbers of digits (n,) and segments (n, size, size)."""
        count = torch.randint(self.fewest, self.most + 1, (n,), generator=generator)
        chosen = digits[torch.randint(len(digits), (n, self.most), generator=generator), 0]  # (n, K, h, w)
        there = torch.arange(self.most) < count.unsqueeze(1)  # (n, K)
        chosen = chosen * there[:, :, None, None]
        layers = self._placed(chosen, generator)
        pending = _overlapping(layers)
        for _ in range(_ROUNDS):
            if len(pending) == 0:
                break
            # Only places are drawn again, so that crowded scenes do not get fewer or smaller digits.
            layers[pending] = self._placed(chosen[pending], generator)
            pending = pending[_overlapping(layers[pending])]
        else:
            raise ConfigError(
                f"data.source: a canvas of {self.shape[1]} x {self.shape[2]} has no room for {self.most} digits"
            )
        owners = torch.arange(1, self.most + 1, dtype=torch.int8).view(-1, 1, 1)
        segments = ((layers >= INK) * owners).sum(1, dtype=torch.int8) - 1
        if not self.colored:
            return layers.sum(1, keepdim=True, dtype=torch.uint8), count, segments
        shades = bright_colors(torch.rand(n, self.most, generator=generator))  # (n, K, 3)
        return torch.einsum("nkhw,nkc->nchw", layers.float(), shades).round_().to(torch.uint8), count, segments

    def _placed(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Digits (n, K, h, w), each on a canvas of its own, at places drawn uniformly: (n, K, size, size)."""
        n, k, height, width = chosen.shape
        size = self.shape[1]
        top = torch.randint(size - height + 1, (n, k, 1, 1), generator=generator) + torch.arange(height).view(-1, 1)
        left = torch.randint(size - width + 1, (n, k, 1, 1), generator=generator) + torch.arange(width)
        layers = chosen.new_zeros(n, k, size * size)
        return layers.scatter_(2, (top * size + left).flatten(2), chosen.flatten(2)).unflatten(2, (size, size))


def bright_colors(hues: Tensor) -> Tensor:
    """Hues (...) in [0, 1), round the circle from red to green to blue, as colors (..., 3) in [0, 1] of full saturation
    and value: of red, green and blue one is 1 and one is 0."""
    thirds = torch.arange(3, dtype=hues.dtype) / 3
    distance = (hues.unsqueeze(-1) - thirds + 0.5) % 1.0 - 0.5  # round the circle, from each of the three
    return (2 - 6 * distance.abs()).clamp(0, 1)


def _overlapping(layers: Tensor) -> Tensor:
    """The scenes (n, K, size, size) in which strokes of two digits touch the same pixel, as indices."""
    return ((layers > 0).sum(1, dtype=torch.uint8) > 1).flatten(1).any(1).nonzero().view(-1)
