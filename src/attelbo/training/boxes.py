"""Boxes around parts of images, for pictures of where a model looks.

Shapes: N images, (C, H, W) one image in [0, 1], s a whole factor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.training.media import in_color

READ_COLOR, WRITE_COLOR = (0.3, 0.85, 0.4), (0.95, 0.25, 0.2)
OBJECT_COLORS = ((0.95, 0.25, 0.2), (0.3, 0.85, 0.4), (0.3, 0.55, 1.0), (1.0, 0.8, 0.2), (0.85, 0.35, 0.9))
"""Of the first object, the second and so on, then again from the start."""
SMALL = 64
"""The least pixels of the longer side of an image that is one of many in a picture."""


def enlarged(images: Tensor, least: int = 96) -> tuple[Tensor, int]:
    """Images in color, each pixel repeated s x s times so that the longer side has at least ``least``:
    (N, 3, s H, s W), and s."""
    scale = max(1, -(-least // max(images.shape[-2:])))
    return in_color(images).repeat_interleave(scale, -1).repeat_interleave(scale, -2), scale


def outlined(images: Tensor, boxes: Tensor, color: Sequence[float], thickness: float = 2.0) -> Tensor:
    """Images (N, 3, H, W) with the outline of a box each, which ends where the image does.

    Args:
        images: in color.
        boxes: top, left, bottom, right, (N, 4), in pixels of these images, whose first one is centered at 0; nothing is
            drawn for a box of NaN.
        color: red, green, blue in [0, 1].
        thickness: of the line, in pixels, inwards.
    """
    edge = images.new_tensor(images.shape[-2:]).repeat(2) - 1  # of the image: (H, W, H, W)
    boxes = boxes.to(images).clamp(min=0).minimum(edge)
    inside, within = (_inside(images, boxes, margin) for margin in (0.0, thickness))
    paint = images.new_tensor(color).view(3, 1, 1)
    return torch.where((inside & ~within).unsqueeze(1), paint, images)


def _inside(images: Tensor, boxes: Tensor, margin: float) -> Tensor:
    """Which pixels lie in the boxes, at least ``margin`` from their edges: (N, H, W)."""
    rows, columns = (torch.arange(n, device=images.device) for n in images.shape[-2:])
    top, left, bottom, right = boxes.unbind(1)
    down = (rows >= (top + margin).unsqueeze(1)) & (rows <= (bottom - margin).unsqueeze(1))
    across = (columns >= (left + margin).unsqueeze(1)) & (columns <= (right - margin).unsqueeze(1))
    return down.unsqueeze(2) & across.unsqueeze(1)


def around_pixels(boxes: Tensor, scale: int) -> Tensor:
    """Boxes whose corners are centers of pixels, as boxes around these pixels once each is scale x scale large."""
    outwards = boxes.new_tensor([-0.5, -0.5, 0.5, 0.5])
    return (boxes + outwards + 0.5) * scale + boxes.new_tensor([0.0, 0.0, -1.0, -1.0])
