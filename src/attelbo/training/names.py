"""The names of rows and columns, written beside a grid of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attelbo.training.media import GAP, GAP_COLOR, Picture

_SIZE, _PAD, _LINE = 13, 6, 20
"""Of the letters, between them and what they name, and of a line, in pixels."""
_INK = (225, 225, 225)


def named(grid: Picture, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Picture:
    """A grid of images, as `media.image_grid` makes it, with the name of each row at its left and that of each column
    above it.

    Args:
        grid: (height, width, 3), uint8, rows and columns of one size each.
        rows: the names of all rows, or none.
        columns: the names of all columns, or none; each is as short as a column is narrow.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", _SIZE)
    height, width, _ = grid.shape
    left = max((round(font.getlength(name)) + 2 * _PAD for name in rows), default=0)
    top = _LINE if any(columns) else 0
    sheet = Image.new("RGB", (left + width, top + height), (GAP_COLOR,) * 3)
    sheet.paste(Image.fromarray(grid), (left, top))
    pen = ImageDraw.Draw(sheet)
    for place, name in enumerate(rows):
        middle = top + GAP / 2 + (place + 0.5) * (height - GAP) / len(rows)
        pen.text((left - _PAD, middle), name, _INK, font, anchor="rm")
    for place, name in enumerate(columns):
        middle = left + GAP / 2 + (place + 0.5) * (width - GAP) / len(columns)
        pen.text((middle, top / 2 + 1), name, _INK, font, anchor="mm")
    return np.asarray(sheet)
