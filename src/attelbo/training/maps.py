"""Attention weights as pictures: text on text, target on source, and laid over images.

Pure functions of weights and labels, whatever model they come from. Weights are drawn as they are, on one scale from 0
to the largest, which is shown beside them.

Shapes: P panels (heads, layers or queries), T queries, S keys, N images (C, H, W), (h, w) the grid of keys in an image.
"""

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.training.boxes import SMALL, enlarged
from attelbo.training.media import Picture, image_grid, painted
from attelbo.training.names import named

_SIDE = 640
"""The most pixels of a side of a panel; with more tokens, a pixel shows the largest of its weights."""
_CELL, _LEAST = 24, 10
"""Pixels of a cell that has a label, and the fewest beside which labels are legible: of 64 tokens. Of more tokens none
has a label."""
_SMALLEST = 240
"""Pixels of the longer side of a panel, however few its cells."""
_LONGEST_LABEL = 14
_FONT, _PAD, _LINE = 9, 3.5, 14
"""Of labels, their distance from the panel, and the height of a line above or below, in points."""
_TITLE, _OF_CHARACTER = 16, 7.6
"""The height of a line of the title, and the width of one of its characters, on average, in points."""
_BAR = 110
"""The least height of the scale, in points."""
_OPACITY = 0.75
_SOFT = "#5b6270"


def attention_map(
    weights: Tensor,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str,
    *,
    panels: Sequence[str] = (),
    axes: tuple[str, str] = ("query", "key"),
    scale: str = "weight",
) -> Picture:
    """Weights as shades, a row for each query and a column for each key, both labelled with their tokens.

    Args:
        weights: (T, S), or (P, T, S) for several panels side by side.
        queries: T tokens.
        keys: S tokens.
        title: written above.
        panels: what is written above each panel.
        axes: what rows and columns are.
        scale: what the shades are.

    Raises:
        ValueError: labels that are not as many as rows, columns or panels.
    """
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    weights = weights.detach().float().cpu().reshape(-1, *weights.shape[-2:])
    count, n_queries, n_keys = weights.shape
    panels = panels or [""] * count
    if (len(panels), len(queries), len(keys)) != (count, n_queries, n_keys):
        raise ValueError(
            f"labels of {len(panels)} panels, {len(queries)} queries and {len(keys)} keys for weights of shape "
            f"{tuple(weights.shape)}"
        )
    columns = min(count, math.ceil(math.sqrt(count * n_queries / n_keys)))
    rows = -(-count // columns)
    weights = weights.nan_to_num(0.0)
    largest = float(weights.max()) or 1.0
    weights = F.adaptive_max_pool2d(weights, (min(n_queries, _SIDE), min(n_keys, _SIDE)))
    longer = max(weights.shape[1:])
    cell = min(max(_CELL, _SMALLEST // longer), _SIDE // longer)
    sheet = _Sheet(dpi=min(150.0, 6.25 * cell) if cell >= _LEAST else 100.0)
    down, across = (_labels(tokens, cell) for tokens in (queries, keys))
    ticks = [tick for tick in MaxNLocator(5).tick_values(0, largest) if tick <= largest]
    numbers = [f"{tick:g}" for tick in ticks]

    # In pixels, from the upper left. All panels have the same tokens: only those at the left and below are labelled.
    px, height, width = sheet.px, cell * weights.shape[1], cell * weights.shape[2]
    step_x, step_y = width + px(10), height + px(10) + any(panels) * px(_LINE)
    left = px(_LINE + 8 + _PAD) + sheet.widest(down)
    right = px(14 + 10 + 4 + _LINE + 12) + sheet.widest(numbers)
    total = max(left + step_x * (columns - 1) + width + right, px(170))
    written = textwrap.wrap(title, int((total - px(16)) / px(_OF_CHARACTER)))
    top = px(14) + len(written) * px(_TITLE) + any(panels) * px(_LINE)
    body = step_y * (rows - 1) + height
    foot = px(_PAD + _LINE + 8) + max(sheet.widest([each for each in across if len(each) > 1]), px(_FONT + 2))
    sheet.write(px(8), px(8), "\n".join(written), size=12, weight="bold", ha="left", va="top")
    corners = [(left + place % columns * step_x, top + place // columns * step_y) for place in range(count)]
    for (x, y), values, panel in zip(corners, weights, panels, strict=True):
        sheet.paint(x, y, colormaps["Blues"](values.numpy() / largest), cell)
        sheet.write(x + width / 2, y - px(4), panel, size=10, va="bottom")
    x, y = corners[0]
    sheet.write(px(8), y + height / 2, axes[0], size=10, rotation=90, ha="left", color=_SOFT)
    for i, token in enumerate(down):
        sheet.write(x - px(_PAD), y + cell * (i + 0.5), token, ha="right", va="center_baseline")
    sheet.repeat([(0, y - px(4)) for _, y in corners[::columns]], left, height + px(8))
    x, y = corners[-columns][0], corners[-columns][1] + height
    sheet.write(x + width / 2, y + foot - px(8), axes[1], size=10, va="bottom", color=_SOFT)
    for i, token in enumerate(across):
        turned = 90 if len(token) > 1 else 0
        sheet.write(x + cell * (i + 0.5), y + px(_PAD), token, va="top", rotation=turned)
    sheet.repeat([(x - px(4), y + height) for x, y in corners[-columns:]], width + px(8), foot)
    bar, x = max(body, px(_BAR)), left + step_x * (columns - 1) + width + px(14)
    sheet.paint(x, top, colormaps["Blues"](np.linspace(1, 0, bar))[:, None], 1, px(10))
    for tick, number in zip(ticks, numbers, strict=True):
        sheet.write(x + px(14), top + bar * (1 - tick / largest), number, ha="left", va="center_baseline")
    sheet.write(total - px(8), top + bar / 2, scale, size=10, rotation=90, ha="right", color=_SOFT)
    return sheet.painted(total, top + max(body + foot, bar + px(14)))


class _Sheet:
    """Texts and rectangles at given places, in pixels from the upper left corner. Axes of matplotlib and its layouts,
    which measure every text several times, would take ten times as long.

    Args:
        dpi: pixels of an inch, which has 72 points.
    """

    def __init__(self, dpi: float) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self.dpi = dpi
        self._measuring = RendererAgg(1, 1, dpi)
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self._shades: list[tuple[int, int, Picture]] = []
        self._repeated: list[tuple[Sequence[tuple[int, int]], int, int]] = []

    def px(self, points: float) -> int:
        return round(points * self.dpi / 72)

    def widest(self, labels: Sequence[str]) -> int:
        """Pixels of the widest of some labels; 0 of none."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=_FONT)
        with _boxes_for_glyphs():
            widths = [self._measuring.get_text_width_height_descent(each, font, False)[0] for each in labels if each]
        return math.ceil(max(widths, default=0))

    def write(self, x: float, y: float, text: str, **how: Any) -> None:
        """``how`` as matplotlib's ``Text`` takes it."""
        self._texts.append((x, y, text, {"size": _FONT, "ha": "center", "va": "center", **how}))

    def paint(self, x: int, y: int, colors: Any, height: int, width: int | None = None) -> None:
        """Cells (h, w, 4), in 0..1, of so many pixels; squares if no width is given."""
        levels = np.rint(colors[..., :3] * 255).astype(np.uint8)
        self._shades.append((x, y, levels.repeat(height, 0).repeat(width or height, 1)))

    def repeat(self, places: Sequence[tuple[int, int]], width: int, height: int) -> None:
        """Copy the labels in a rectangle at the first place to the others: drawing text takes long."""
        self._repeated.append((places, width, height))

    def painted(self, width: int, height: int) -> Picture:
        from matplotlib.figure import Figure
        from matplotlib.transforms import IdentityTransform

        figure = Figure(figsize=((width + 0.5) / self.dpi, (height + 0.5) / self.dpi), dpi=self.dpi)
        for x, y, text, how in self._texts:
            if text:
                figure.text(x, height - y, text, transform=IdentityTransform(), parse_math=False, **how)
        with _boxes_for_glyphs():
            picture = painted(figure)
        for ((x, y), *others), wide, high in self._repeated:
            written = picture[y : y + high, x : x + wide]
            for x_there, y_there in others:
                picture[y_there : y_there + high, x_there : x_there + wide] = written
        for x, y, shades in self._shades:
            picture[y : y + shades.shape[0], x : x + shades.shape[1]] = shades
        return picture


@contextmanager
def _boxes_for_glyphs() -> Iterator[None]:
    """Without the warnings about characters that are missing from the font; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def alignment_map(
    weights: Tensor, source: Sequence[str], target: Sequence[str], title: str, panels: Sequence[str] = ()
) -> Picture:
    """How much of each source token went into each target token, as Bahdanau, Cho & Bengio 2015 (Figure 3) show it.

    Args:
        weights: (U, S), a row for each token of the target, or (P, U, S) for several panels, such as heads.
        source: S tokens.
        target: U tokens.
        title: written above.
        panels: what is written above each panel.
    """
    return attention_map(weights, target, source, title, panels=panels, axes=("target", "source"))


def attention_overlay(
    images: Tensor, weights: Tensor, queries: Tensor | None = None, panels: Sequence[str] = ()
) -> Picture:
    """Where an image is looked at: a row for each image, first as it is, then with each panel's weights laid over it.

    Each panel has a scale of its own, since in large images all weights are small.

    Args:
        images: (N, C, H, W) in [0, 1].
        weights: (N, P, h, w), not negative.
        queries: (N, P), the cell that asks, counted along the rows of the (h, w) grid; it is painted green.
        panels: what is written above each panel.

    Raises:
        ValueError: weights of another number of images.
    """
    n, count, height, width = weights.shape
    if len(images) != n:
        raise ValueError(f"weights of {n} images, but {len(images)} images")
    gray = images.detach().float().cpu().mean(1, keepdim=True).expand(-1, 3, -1, -1)  # (N, 3, H, W)
    heat = weights.detach().float().cpu().nan_to_num(0.0)
    heat = heat / heat.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    colors = _heat_colors(heat)  # (N, P, 3, h, w)
    if queries is not None:
        asking = F.one_hot(queries.cpu(), height * width).view(n, count, 1, height, width).bool()
        heat = torch.where(asking[:, :, 0], 1.0, heat)
        colors = torch.where(asking, torch.tensor([0.1, 0.9, 0.3]).view(3, 1, 1), colors)
    opacity = _OPACITY * F.interpolate(heat, images.shape[-2:], mode="nearest").unsqueeze(2)
    colors = F.interpolate(colors.flatten(0, 1), images.shape[-2:], mode="nearest").unflatten(0, (n, count))
    shown = torch.cat([gray.unsqueeze(1), torch.lerp(gray.unsqueeze(1), colors, opacity)], 1)
    grid = image_grid(enlarged(shown.flatten(0, 1), SMALL)[0], columns=count + 1)
    return named(grid, columns=["image", *panels]) if panels else grid


def shown_token(token: str) -> str:
    """A token as a label: white space is made visible, a long token is cut."""
    visible = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return visible if len(visible) <= _LONGEST_LABEL else f"{visible[: _LONGEST_LABEL - 1]}…"


def _labels(tokens: Sequence[str], cell: int) -> list[str]:
    """Of the tokens along a side; none where there is no room for them."""
    return [shown_token(token) for token in tokens] if cell >= _LEAST or len(tokens) == 1 else []


def _heat_colors(heat: Tensor) -> Tensor:
    """From red to yellow, (..., h, w) in [0, 1] to (..., 3, h, w)."""
    return torch.stack([torch.ones_like(heat), 0.15 + 0.7 * heat, 0.1 * heat], -3)
