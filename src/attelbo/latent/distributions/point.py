"""A point in place of a distribution: the output of a deterministic encoder.

Shapes: n samples, B batch, E event shape.
"""

from torch import Tensor

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions.base import Distribution


class Point(Distribution):
    """q with all its mass on ``value`` (B, *E), real numbers. It has no density, so no KL to a prior."""

    deterministic = True

    def __init__(self, value: Tensor) -> None:
        self.value = full_precision(value)

    @property
    def mean(self) -> Tensor:
        return self.value

    def rsample(self, n: int) -> Tensor:
        """n times the point, as a view (n, B, *E)."""
        return self.value.expand(n, *self.value.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a point has no density")
