"""Light distributions over latents: torch's own spend more time on checks than on arithmetic here.

Shapes: n samples, B batch, E event shape.
"""

from abc import ABC, abstractmethod

from torch import Tensor


class Distribution(ABC):
    """A batch of distributions q over an event, one for each row."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E_q[z], (B, *E)."""

    @abstractmethod
    def rsample(self, n: int) -> Tensor:
        """n reparametrized samples, (n, B, *E), from the default generator of the device."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) of z (n, B, *E), summed over the event: (n, B), nats."""
