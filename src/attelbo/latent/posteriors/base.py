"""What a posterior is: a head on the encoder's features that gives q(z|x)."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from attelbo.latent.distributions import Distribution
from attelbo.latent.spaces import Real, Space


class Posterior(nn.Module, ABC):
    """Features h (B, *F) -> q(z|x), a batch of distributions over z (*E).

    Subclasses take ``in_shape`` (F) and ``latent_dim`` first, both given by the model.
    """

    distribution: ClassVar[type[Distribution]]
    """The kind of q(z|x)."""
    has_density: ClassVar[bool] = True
    """False: q(z|x) is a point among real numbers, so there is no bound on log p(x)."""
    latent_shape: tuple[int, ...]
    """E, the shape of one z as the decoder sees it."""

    @property
    def space(self) -> Space:
        """The space of z, for the prior: real numbers of shape E by default."""
        return Real(self.latent_shape)

    @abstractmethod
    def forward(self, h: Tensor) -> Distribution: ...

    def at_step(self, step: int, total_steps: int) -> None:
        """Called before optimizer step ``step`` of ``total_steps``: values that follow a schedule are written into
        buffers."""

    def from_prior(self, value: Tensor) -> Tensor:
        """Samples of a prior, (n, *space.shape), as the decoder sees them, (n, *E)."""
        return value


def flat_features(h: Tensor) -> Tensor:
    """h (B, *F) -> (B, D), a feature map (C, H, W) pixel by pixel: a view of channels_last memory."""
    return h.movedim(1, -1).flatten(1)
