"""Several layers of latents, drawn one after the other: what is known of q(z|x) as a whole.

Shapes: B batch, D dimensions of all layers together.
"""

from torch import Tensor

from attelbo.latent.distributions.base import Distribution


class Layered(Distribution):
    """q(z|x) = q(z_L|x) q(z_{L-1}|z_L, x) ... of a hierarchy. Its layers are drawn by the model, and only there; here
    is the mean of each given the layers above it as they were drawn.

    Args:
        mean: (B, D), layers from the top to the bottom, flattened.
    """

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean

    @property
    def mean(self) -> Tensor:
        return self._mean

    def rsample(self, n: int) -> Tensor:
        raise NotImplementedError("the layers of a hierarchy are drawn by its model, one after the other")

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError("a hierarchy knows the density of the layers that it draws, not of given ones")
