"""Several layers of latents, drawn one after the other: what is known of q(z|x) as a whole.

Shapes: B batch, D dimensions of all layers together.
"""

from collections.abc import Callable

from torch import Tensor

from attelbo.latent.distributions.base import Distribution


class Layered(Distribution):
    """q(z|x) = q(z_L|x) q(z_{L-1}|z_L, x) ... of a hierarchy. Its layers are drawn by the model, and only there.

    Args:
        means: makes the mean of each layer given the means above it, (B, D), layers from the top to the bottom,
            flattened. Given a sample of the layers above, a mean would move with it, and not with x alone. It costs
            another way through the layers, and is made when it is asked for.
        penalty: what training adds to the loss, (B,); None: nothing.
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
