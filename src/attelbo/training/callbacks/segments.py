"""Which pixels each slot of a slot-attention autoencoder owns, and what it paints there.

Shapes: n images (n, C, H, W), K slots.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.models import SlotAutoencoder
from attelbo.training.boxes import OBJECT_COLORS, SMALL, enlarged
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import Picture, image_grid
from attelbo.training.names import named

_DIM = 0.25
"""Brightness of the color of a slot where the image is black."""


class Segments(Exhibit):
    """``segments``, a column for each image: the image, its reconstruction, the owner of each pixel as a color, and of
    each slot, one below the other, what it paints times its share of the pixel.

    Args:
        n: images.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n: int = 10, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n=n)
        self.n = n

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, SlotAutoencoder)

    def works(self, model: SlotAutoencoder, data: ExhibitedData) -> dict[str, Picture]:
        x = self.rows(data, self.n, model.device).x
        painted, shares = model.layers(x)
        slots = (painted * shares.unsqueeze(2)).unbind(1)
        rows = {
            "image": x,
            "reconstruction": model.reconstruct(x),
            "owners": owners(x, shares.argmax(1), OBJECT_COLORS),
        }
        rows |= {f"slot {place}": slot for place, slot in enumerate(slots, 1)}
        large = torch.cat([enlarged(row, SMALL)[0] for row in rows.values()])
        return {"segments": named(image_grid(large, len(x)), list(rows))}


def owners(images: Tensor, slots: Tensor, colors: Sequence[Sequence[float]]) -> Tensor:
    """Images (n, C, H, W) whose pixels have the color of their slot (n, H, W), darker where the image is dark; beyond
    the last color they begin again."""
    palette = images.new_tensor(colors)
    color = palette[slots % len(palette)].movedim(-1, 1)
    return color * (_DIM + (1 - _DIM) * images.amax(1, keepdim=True).clamp(0, 1))
