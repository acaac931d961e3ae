"""Which objects AIR finds in images.

Shapes: n images (n, C, H, W), T objects at most, D numbers of each.
"""

import itertools
from typing import Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.glimpses import box_of
from attelbo.checks import check_at_least
from attelbo.models import AttendInferRepeat
from attelbo.training.boxes import OBJECT_COLORS, enlarged, outlined
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import Picture, pair_grid


class Objects(Exhibit):
    """``objects``: images with a box around each object that is found, and their reconstructions below; the first
    object is red, the second green, the third blue.

    Args:
        n: images.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n: int = 20, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n=n)
        self.n = n

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, AttendInferRepeat)

    def works(self, model: AttendInferRepeat, data: ExhibitedData) -> dict[str, Picture]:
        x = self.rows(data, self.n, model.device).x
        places = model.places(x)
        return {"objects": pair_grid(boxed(x, places), boxed(model.reconstruct(x), places))}


def boxed(images: Tensor, places: Tensor) -> Tensor:
    """Images (n, C, H, W), enlarged, with boxes around places (n, T, 3), NaN where there is no object."""
    height, width = images.shape[-2:]
    large, scale = enlarged(images)
    for place, color in zip(places.unbind(1), itertools.cycle(OBJECT_COLORS), strict=False):
        box = box_of(place, (scale * height, scale * width))
        large = outlined(large, torch.where(place.isnan().any(1, keepdim=True), torch.nan, box), color)
    return large
