"""What a distribution over latents is. Lightweight, since torch's own spend more time on checks than on arithmetic
here.

Shapes: n samples, B batch, E event shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor

from attelbo.latent.control_variates import Reference


class Distribution(ABC):
    """A batch of distributions q over an event, one for each row."""

    deterministic: ClassVar[bool] = False
    """Whether each q is a point, of which all samples are equal."""
    reparametrized: ClassVar[bool] = True
    """Whether samples are smooth functions of q's parameters and of independent noise, and have the density that
    ``log_prob`` gives, in training too."""

    def with_log_joint(self, log_joint: Callable[[Tensor], Tensor]) -> Self:
        """The distribution given the model's log p(x, z), (n, B), as a function of z (n, B, *E). The same, unless a
        subclass depends on it.
        """
        return self

    @classmethod
    def is_guided(cls) -> bool:
        """Whether it depends on ``with_log_joint``."""
        return cls.with_log_joint is not Distribution.with_log_joint

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E_q[z], (B, *E), or where that is not known, a point that represents q."""

    @property
    def center(self) -> Tensor:
        """The point of the space that represents q, (B, *E): the mean, unless that lies outside the space."""
        return self.mean

    @abstractmethod
    def rsample(self, n: int) -> Tensor:
        """n reparametrized samples, (n, B, *E), from the default generator of the device."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) of z (n, B, *E), summed over the event: (n, B), nats."""

    def cross_log_prob(self, z: Tensor) -> Tensor:
        """log q_b(z) of each z (n, *E) under each of the B distributions: (n, B), nats."""
        return self.log_prob(z.unsqueeze(1).expand(-1, len(self.mean), *z.shape[1:]))

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """``rsample``, with log q(z) of each sample, (n, B), nats: computed from the noise where possible."""
        z = self.rsample(n)
        return z, self.log_prob(z)

    def rsample_for_kl(self, n: int) -> tuple[Tensor, Tensor, Reference]:
        """``rsample_with_log_prob``, with a reference for log q(z) - log N(z; 0, I), which reduces the variance of an
        estimated KL in training (``attelbo.latent.control_variates``). Zero unless a subclass provides one."""
        z, log_q = self.rsample_with_log_prob(n)
        return z, log_q, Reference(torch.zeros_like(log_q), torch.zeros_like(log_q[0]))

    def prior_value(self, z: Tensor) -> Tensor:
        """Samples z (n, B, *E), which the decoder sees, as the prior sees them: z itself, or its codes."""
        return z

    def stop_gradient(self) -> Self:
        """The same distribution, through whose parameters no gradient flows.

        Raises:
            NotImplementedError: log q(z) of a given z is not known here.
        """
        raise NotImplementedError(f"{type(self).__name__} has no density of a given z")

    @property
    def penalty(self) -> Tensor | None:
        """A term of the training loss for each row, (B,), such as a commitment to a codebook; no part of a bound."""
        return None
