"""Several layers of latents, drawn one after the other: q(z|x) as a whole.

Shapes: B batch, D dimensions of all layers together.
"""

from collections.abc import Callable

from torch import Tensor

from attelbo.latent.distributions.base import Distribution


class Layered(Distribution):
    """q(z|x) = q(z_L|x) q(z_{L-1}|z_L, x) ... of a hierarchy. Its layers are drawn by the model only.

    Args:
        means: computes the mean of each layer given the means above it, (B, D), layers from the top to the bottom,
            flattened. Given samples of the layers above, a mean would vary with them, not with x alone. It takes
            another pass through the layers, and is computed on demand.
        penalty: a term of the training loss, (B,); None: none.
    """

    def __init__(self, means: Callable[[], Tensor], penalty: Tensor | None = None) -> None:
        self._means = means
        self._penalty = penalty

    @property
    def mean(self) -> Tensor:
        return self._means()

    @property
    def penalty(self) -> Tensor | None:
        return self._penalty

    def rsample(self, n: int) -> Tensor:
        raise NotImplementedError("the layers of a hierarchy are drawn by its model, one after the other")

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError("a hierarchy knows the density of the layers that it draws, not of given ones")
