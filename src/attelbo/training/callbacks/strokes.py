"""How DRAW paints: stroke by stroke, with the windows that it looks and paints through.

Shapes: n images (n, C, H, W), T strokes.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attelbo.attention import GaussianWindow
from attelbo.checks import check_at_least
from attelbo.models import DRAW
from attelbo.training.boxes import READ_COLOR, WRITE_COLOR, around_pixels, enlarged, outlined
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import Animation, Picture, image_grid

COLUMNS = 10
"""Strokes in a strip, at most: the first, the last and some between."""
PAUSE = 10
"""Frames for which the finished images are shown."""


class Strokes(Exhibit):
    """``strokes``: samples as they are painted, as an animation and as a strip; ``glimpses``: images as they are looked
    at, above what is painted of them.

    Args:
        n_samples: samples in the animation.
        n_images: samples in the strip, and images that are looked at.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        n_samples: int = 16,
        n_images: int = 5,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n_samples=n_samples, n_images=n_images)
        self.n_samples = n_samples
        self.n_images = n_images

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, DRAW)

    def works(self, model: DRAW, data: ExhibitedData) -> dict[str, Picture | Animation]:
        x = self.rows(data, self.n_images, model.device).x
        return {"strokes": painting(model, self.n_samples, self.n_images), "glimpses": glimpses(model, x)}


def painting(model: DRAW, n: int, n_still: int = 5) -> Animation:
    """n samples, stroke by stroke, each with its window; the first ``n_still`` of them as a strip."""
    strokes = model.paint(n)
    canvases = [model.likelihood.mean(stroke.canvas) for stroke in strokes]
    frames = [_framed(canvas, stroke.write, WRITE_COLOR) for canvas, stroke in zip(canvases, strokes, strict=True)]
    finished, _ = enlarged(canvases[-1])
    shown = torch.stack([*(frames[t][:n_still] for t in _spread(len(frames))), finished[:n_still]], 1)
    still = image_grid(shown.flatten(0, 1), shown.shape[1])
    return Animation([image_grid(frame) for frame in [*frames, *[finished] * PAUSE]], still)


def glimpses(model: DRAW, x: Tensor) -> Picture:
    """Two rows for each x: where it is read before some of the strokes, and what is painted by then, where."""
    strokes = model.copy(x)
    chosen = [strokes[t] for t in _spread(len(strokes))]
    seen = torch.stack([_framed(x, stroke.read, READ_COLOR) for stroke in chosen], 1)
    painted = torch.stack(
        [_framed(model.likelihood.mean(stroke.canvas), stroke.write, WRITE_COLOR) for stroke in chosen], 1
    )
    return image_grid(torch.stack([seen, painted], 1).flatten(0, 2), len(chosen))


def _framed(images: Tensor, window: GaussianWindow | None, color: tuple[float, float, float]) -> Tensor:
    large, scale = enlarged(images)
    return large if window is None else outlined(large, around_pixels(window.box, scale), color)


def _spread(n: int) -> list[int]:
    """Of n steps the first, the last and some between."""
    shown = min(n, COLUMNS)
    return [round(i * (n - 1) / max(shown - 1, 1)) for i in range(shown)]
