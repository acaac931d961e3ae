"""Attention weights as pictures: text on text, target on source, and laid over images.

Pure functions of weights and labels; whoever has a model says where these come from. Weights are drawn as they are, on
one scale from 0 to the largest, which stands beside them.

Shapes: P panels (heads, layers or queries), T queries, S keys, N images (C, H, W), (h, w) the grid of keys in an image.
"""

import math
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.training.media import Picture, image_grid, painted

_MOST_LABELS = 64
"""Along a side: of more tokens the labels would not be legible, and places are numbered instead."""
_LONGEST_LABEL = 14
_INCHES = 0.24
"""Of a cell that has a label."""
_INCHES_OF_TITLE = 0.105
"""Of a character of the title, on average."""
_FONT, _PAD = 9, 3.5
"""Of labels, and their distance from the panel, in points."""
_OPACITY = 0.75


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
    from matplotlib.figure import Figure

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
    cell = _cell_inches(max(n_keys, n_queries))
    width, height = cell * n_keys, cell * n_queries
    size = columns * width + 1.6, rows * (height + 0.5) + 0.9
    figure = Figure(figsize=size, dpi=_dpi(columns * width, rows * height), layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = float(weights.nan_to_num(0.0).max()) or 1.0
    shades: Any = None
    for place, panel in enumerate(grid.flat):
        if place >= count:
            panel.set_visible(False)
            continue
        shades = panel.imshow(weights[place].numpy(), cmap="Blues", vmin=0, vmax=largest, interpolation="nearest")
        panel.set_title(panels[place], fontsize=10, parse_math=False)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0, pad=_PAD, labelsize=_FONT)
        # Panels have the same tokens: only those at the left and at the lower end are labelled.
        _label(panel.yaxis, queries if place % columns == 0 else None)
        _label(panel.xaxis, keys if place + columns >= count else None)
        panel.set_ylabel(axes[0] if place % columns == 0 else "", color="#5b6270")
        panel.set_xlabel(axes[1] if place + columns >= count else "", color="#5b6270")
    written = textwrap.fill(title, max(20, int(size[0] / _INCHES_OF_TITLE)))
    figure.suptitle(written, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    figure.colorbar(shades, ax=grid, label=scale, shrink=0.8, aspect=30, pad=0.02).outline.set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it is drawn as a box
        return painted(figure, margin=0.1)


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


def attention_overlay(images: Tensor, weights: Tensor, queries: Tensor | None = None) -> Picture:
    """Where an image is looked at: a row for each image, first as it is, then with each panel's weights laid over it.

    Each panel has a scale of its own, since in large images all weights are small.

    Args:
        images: (N, C, H, W) in [0, 1].
        weights: (N, P, h, w), not negative.
        queries: (N, P), the cell that asks, counted along the rows of the (h, w) grid; it is painted green.

    Raises:
        ValueError: weights of another number of images.
    """
    n, panels, height, width = weights.shape
    if len(images) != n:
        raise ValueError(f"weights of {n} images, but {len(images)} images")
    gray = images.detach().float().cpu().mean(1, keepdim=True).expand(-1, 3, -1, -1)  # (N, 3, H, W)
    heat = weights.detach().float().cpu().nan_to_num(0.0)
    heat = heat / heat.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    colors = _heat_colors(heat)  # (N, P, 3, h, w)
    if queries is not None:
        asking = F.one_hot(queries.cpu(), height * width).view(n, panels, 1, height, width).bool()
        heat = torch.where(asking[:, :, 0], 1.0, heat)
        colors = torch.where(asking, torch.tensor([0.1, 0.9, 0.3]).view(3, 1, 1), colors)
    opacity = _OPACITY * F.interpolate(heat, images.shape[-2:], mode="nearest").unsqueeze(2)
    colors = F.interpolate(colors.flatten(0, 1), images.shape[-2:], mode="nearest").unflatten(0, (n, panels))
    shown = torch.cat([gray.unsqueeze(1), torch.lerp(gray.unsqueeze(1), colors, opacity)], 1)
    return image_grid(shown.flatten(0, 1), columns=panels + 1)


def shown_token(token: str) -> str:
    """A token as a label: what cannot be seen is given a sign, what is long is cut."""
    visible = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return visible if len(visible) <= _LONGEST_LABEL else f"{visible[: _LONGEST_LABEL - 1]}…"


def _label(axis: Any, tokens: Sequence[str] | None) -> None:
    """Write tokens along an axis; nothing if None, and numbers if there are too many.

    The longest is a tick of the axis, for which room is made; the others are written beside it without being measured:
    hundreds of ticks take seconds.
    """
    if tokens is None:
        axis.set_ticks([])
        return
    if len(tokens) > _MOST_LABELS:
        return
    shown, across = [shown_token(token) for token in tokens], axis.axis_name == "x"
    longest = max(range(len(shown)), key=lambda place: len(shown[place]))
    axis.set_ticks([longest], [shown[longest]], parse_math=False)
    axis.get_ticklabels()[0].set_rotation(90 if across and len(shown[longest]) > 1 else 0)
    beside: Any = (
        {"xycoords": ("data", "axes fraction"), "xytext": (0, -_PAD), "ha": "center", "va": "top"}
        if across
        else {"xycoords": ("axes fraction", "data"), "xytext": (-_PAD, 0), "ha": "right", "va": "center_baseline"}
    )
    for place, token in enumerate(shown):
        if place != longest:
            at = (place, 0) if across else (0, place)
            turned = 90 if across and len(token) > 1 else 0
            label = axis.axes.annotate(
                token, at, **beside, textcoords="offset points", fontsize=_FONT, rotation=turned, parse_math=False
            )
            label.set_in_layout(False)


def _cell_inches(n: int) -> float:
    """The side of a cell, of n along the longer side of a panel."""
    return max(1.6 / n, _INCHES) if n <= _MOST_LABELS else 8 / n


def _dpi(width: float, height: float) -> float:
    """So many that a large figure does not become a huge picture."""
    return min(150.0, 3200 / max(width, height))


def _heat_colors(heat: Tensor) -> Tensor:
    """From red to yellow, (..., h, w) in [0, 1] to (..., 3, h, w)."""
    return torch.stack([torch.ones_like(heat), 0.15 + 0.7 * heat, 0.1 * heat], -3)
