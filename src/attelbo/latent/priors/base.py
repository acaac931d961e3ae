"""What a prior is: p(z), with its density, its samples and the KL of a posterior to it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from attelbo.latent.distributions import Distribution


class Prior(nn.Module, ABC):
    """p(z) over z (*E). Subclasses take ``latent_shape`` (E) first, given by the model."""

    latent_shape: tuple[int, ...]

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of z (n, B, *E), summed over the event: (n, B), nats."""

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """n samples, (n, *E), on the prior's device."""

    def kl(self, q: Distribution, z: Tensor) -> Tensor:
        """KL(q || p) by group, (B, G), nats. Here the estimate from the samples z (n, B, *E) of q, one
        group; a prior overrides it where a closed form exists for this q."""
        return (q.log_prob(z) - self.log_prob(z)).mean(0).unsqueeze(-1)
