"""What is made to be looked at: texts, and pictures as plain arrays: image grids, the latent map, PNG and GIF files.

Every picture that leaves attelbo (files, TensorBoard, W&B) goes through `to_uint8` once, since
the loggers disagree about floats: ``wandb.Image`` shows a float image in [0, 1] as black.

Shapes: N images, (C, H, W) one image in [0, 1], pictures are uint8 (height, width, 3), D latent dimensions.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attelbo.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
"""Red, green, blue in 0..255, (height, width, 3): what PIL, TensorBoard and W&B all take as it is."""

Still = Picture | str
"""A picture or a text."""


class Animation(NamedTuple):
    """A moving picture."""

    frames: list[Picture]
    still: Picture
    """A picture in its place, where nothing can move."""


Work = Still | Animation
"""What is made of a model to be looked at."""

SMALLEST_TILE = 48
"""Images are enlarged by a whole factor until their longer side has this many pixels."""
GAP = 2
"""Pixels between the images of a grid, and around it."""
GAP_COLOR = 64
POINT_OPACITY = 0.75
FRAME_MS = 120
"""Milliseconds for which a frame of an animation is shown."""


def to_levels(images: Tensor) -> NDArray[np.uint8]:
    """Images with values in [0, 1] as bytes with the channels last; values outside are clipped, NaN becomes 0.

    Args:
        images: (..., C, H, W).

    Returns:
        (..., H, W, C), uint8.
    """
    levels = images.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def to_uint8(images: Tensor) -> Picture:
    """Images as pictures. One channel is shown in gray, three as colors, any other number as the gray mean of the
    channels.

    Args:
        images: (..., C, H, W) in [0, 1]; see :func:`to_levels`.

    Returns:
        (..., H, W, 3), uint8.
    """
    if images.shape[-3] not in (1, 3):
        images = images.mean(-3, keepdim=True)
    levels = to_levels(images)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:-1], 3)))


def in_color(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as red, green and blue, (N, 3, H, W): the mean of the channels, unless there are three."""
    return images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def image_grid(images: Tensor, columns: int | None = None) -> Picture:
    """Images side by side, row by row, with a gap of `GAP` pixels; places without an image stay in the gap's color.

    Tiny images are enlarged by repeating pixels, so that an 8x8 digit can be seen for what it is.

    Args:
        images: (N, C, H, W) in [0, 1], N at least 1.
        columns: Images in a row; by default the grid is as square as it can be.

    Returns:
        (rows * (scale * H + GAP) + GAP, columns * (scale * W + GAP) + GAP, 3), uint8.
    """
    tiles = to_uint8(images)
    count, height, width, _ = tiles.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    scale = max(1, -(-SMALLEST_TILE // max(height, width)))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)

    step_y, step_x = scale * height + GAP, scale * width + GAP
    grid = np.full((rows * step_y + GAP, columns * step_x + GAP, 3), GAP_COLOR, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = GAP + place // columns * step_y, GAP + place % columns * step_x
        grid[top : top + scale * height, left : left + scale * width] = tile
    return grid


def class_columns(n: int, n_classes: int | None) -> int | None:
    """Columns of a grid of n images whose classes come in turn: one for each, where that makes two rows or more."""
    return n_classes if n_classes is not None and 2 * n_classes <= n else None


def pair_grid(originals: Tensor, reconstructions: Tensor, columns: int = 10) -> Picture:
    """Each original with its reconstruction directly below it, ``columns`` pairs side by side.

    Args:
        originals: (N, C, H, W) in [0, 1].
        reconstructions: (N, C, H, W) in [0, 1].
        columns: Pairs in a row.
    """
    columns = min(columns, len(originals))
    blank = originals.new_full((-len(originals) % columns, *originals.shape[1:]), GAP_COLOR / 255)
    above, below = (
        torch.cat([images.to(originals), blank]).unflatten(0, (-1, columns)) for images in (originals, reconstructions)
    )
    return image_grid(torch.stack([above, below], 1).flatten(0, 2), columns)


def row_grid(rows: Sequence[Tensor]) -> Picture:
    """Images in rows, (n_i, C, H, W) each, which begin together and may end apart."""
    width = max(map(len, rows))
    blanks = (row.new_full((width - len(row), *row.shape[1:]), GAP_COLOR / 255) for row in rows)
    return image_grid(torch.cat([part for pair in zip(rows, blanks, strict=True) for part in pair]), width)


def save_work(work: Work, path: Path) -> Path:
    """Write a picture as PNG, a text as UTF-8, an animation as GIF and its still as PNG, to ``path`` with the ending
    that belongs to it; the path of the PNG or the text."""
    if isinstance(work, str):
        return write_atomically(path.with_name(f"{path.name}.txt"), work)
    if isinstance(work, Animation):
        save_gif(work.frames, path.with_name(f"{path.name}.gif"))
        work = work.still
    return save_png(work, path.with_name(f"{path.name}.png"))


def save_png(picture: Picture, path: Path) -> Path:
    """Write a PNG file that is either whole or not there."""
    return write_atomically(path, png_bytes(picture))


def save_gif(pictures: Sequence[Picture], path: Path) -> Path:
    """Write pictures of one size as an endless animation: a GIF file that is either whole or not there."""
    from PIL import Image

    first, *others = [Image.fromarray(picture) for picture in pictures]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    return write_atomically(path, buffer.getvalue())


def png_bytes(picture: Picture) -> bytes:
    """The picture as the content of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=3)  # two thirds of the time, a tenth more bytes
    return buffer.getvalue()


def project_to_plane(points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Coordinates in a plane for points in D dimensions.

    More than two dimensions are projected on the two principal components (Pearson 1901), each
    with the sign that makes its largest coefficient positive, so that equal input gives an equal map. One
    dimension becomes its empirical distribution function.

    Args:
        points: (N, D).

    Returns:
        (N, 2), and the share of the variance along each of the two components where D > 2.
    """
    points = points.detach().double().cpu()
    if points.shape[1] == 1:
        height = points.flatten().argsort().argsort().add(1) / len(points)
        return torch.stack([points.flatten(), height], -1), None
    if points.shape[1] == 2:
        return points, None
    centered = points - points.mean(0)
    variances, components = torch.linalg.eigh(centered.T @ centered)
    variances, components = variances.flip(0).clamp_min(0), components.flip(1)[:, :2]
    strongest = components.gather(0, components.abs().argmax(0, keepdim=True))
    share = variances[:2] / variances.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return centered @ (components * strongest.sign()), share


def latent_map(
    means: Tensor,
    labels: Tensor | None = None,
    title: str = "Posterior means",
    axis: str = "z",
    names: Sequence[str] | None = None,
) -> Picture:
    """Posterior means as points in a plane, one color for each label.

    Args:
        means: Posterior means, (N, D); D > 2 is projected, see `project_to_plane`.
        labels: Classes, (N,), or factors, (N, F), of which the first that varies gives the color; integers.
        title: Written above the map.
        axis: What the coordinates of points in the plane are called.
        names: Of the classes; their numbers by default.
    """
    from matplotlib.figure import Figure

    plane, share = project_to_plane(means)
    x, y = plane.numpy().T
    # The object interface, not pyplot: no global figure, no window, no backend to choose.
    figure = Figure(figsize=(6.4, 6.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(12_000 / len(x), 3, 20))
    if labels is None:
        axes.scatter(x, y, s=size, color="#3b6fb6", linewidths=0, alpha=POINT_OPACITY)
    else:
        _scatter_by_label(axes, x, y, _first_that_varies(labels).cpu().numpy(), size, names)

    written = textwrap.fill(title, 58)  # what is beyond the edge of the figure would be cut off
    figure.suptitle(written, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    if share is not None:
        axes.set_xlabel(f"principal component 1 ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"principal component 2 ({share[1]:.0%} of the variance)")
    else:
        axes.set_xlabel(f"{axis}1" if means.shape[1] == 2 else axis)
        axes.set_ylabel(f"{axis}2" if means.shape[1] == 2 else "share of the points below")
    axes.grid(color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors="#5b6270")
    return painted(figure)


def painted(figure: "Figure") -> Picture:
    """The pixels of a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _first_that_varies(labels: Tensor) -> Tensor:
    """Of factors (N, F) one column, such as the shape where the color is always the same; classes (N,) as they are."""
    if labels.ndim == 1:
        return labels
    return labels[:, int((labels != labels[0]).any(0).int().argmax())]


def label_colors(n_classes: int) -> NDArray[Any]:
    """One color for each class, (n_classes, 4): distinct ones up to 20, a rainbow beyond."""
    from matplotlib import colormaps

    if n_classes > 20:
        return colormaps["turbo"](np.linspace(0, 1, n_classes))
    return colormaps["tab10" if n_classes <= 10 else "tab20"](np.arange(n_classes))


def _scatter_by_label(
    axes: Any, x: NDArray[Any], y: NDArray[Any], labels: NDArray[Any], size: float, names: Sequence[str] | None
) -> None:
    """All points in one random-looking but fixed order, so that no class covers another; names beside the map."""
    from matplotlib.lines import Line2D

    classes, place = np.unique(labels, return_inverse=True)
    colors = label_colors(len(classes))
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(x))
    axes.scatter(x[order], y[order], s=size, c=colors[place[order]], linewidths=0, alpha=POINT_OPACITY)
    if len(classes) <= 20:
        marker: Any = {"marker": "o", "linestyle": "", "markersize": 6}
        called = [names[label] if names and label >= 0 else str(label) for label in classes]  # -1: it is not known
        handles = [
            Line2D([], [], color=color, label=name, **marker) for name, color in zip(called, colors, strict=True)
        ]
        legend = axes.legend(
            handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handletextpad=0.2
        )
        for text in legend.get_texts():  # a name may have dollars in it
            text.set_parse_math(False)
