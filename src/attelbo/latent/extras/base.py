"""What an extra term is: a distance between images and reconstructions that is not the logarithm of a density.

It is added to the loss and logged as ``extra``; it is no part of the ELBO, of the reconstruction or of any bound.

Shapes: N images (C, H, W).
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Extra(nn.Module, ABC):
    """Subclasses take ``data_shape`` (C, H, W) first, given by the model, and ``weight``."""

    of_unit_range: ClassVar[bool] = False
    """Whether it is defined for pixels from 0 to 1 only."""
    weight: float
    """Of the distance in the loss."""

    @abstractmethod
    def distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """Of images from their reconstructions E[x|z], both (N, C, H, W): (N,), 0 where they are the same."""

    def forward(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The term, (N,)."""
        return self.weight * self.distance(x, reconstruction)
