"""What a prior is: p(z), with its density, its samples and, where a closed form exists, the KL of a posterior to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from attelbo.latent.distributions import Distribution
from attelbo.latent.spaces import Real, Space


class Density(Protocol):
    """What evidence terms need of a prior: p(z), or p(z|y) for the labels of a batch."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of z (n, B, *E), summed over the event: (n, B), nats."""
        ...

    def bound(self, z: Tensor) -> Tensor:
        """``log_prob``, or in expectation a lower bound of it, for a loss that is linear in it: (n, B), nats."""
        return self.log_prob(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        """``log_prob`` for many calls with fixed parameters: what does not depend on z is computed once, here."""
        return self.log_prob

    def sample(self, n: int) -> Tensor:
        """n samples, (n, *E); given labels, n is their number."""
        ...

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || p) by group, (B, G), nats, where a closed form exists for this q; else None."""
        return None


class Prior(nn.Module, ABC):
    """p(z) over z (*E).

    The model passes to subclasses what their constructors name: ``latent_shape`` (E), ``space`` (the posterior's
    :class:`~attelbo.latent.spaces.Space`), ``data_shape`` (C, ...), ``data_kind`` ("binary", "levels", "real", ...),
    ``data_classes`` (how many, or None).
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Real,)
    """The spaces that it is a prior on."""
    made_of_posteriors: ClassVar[bool] = False
    """Whether it needs the density of q(z|x) at any z."""
    estimates: ClassVar[bool] = False
    """Whether ``log_prob`` is the logarithm of an unbiased estimate of p(z), with fresh noise: in expectation at most
    log p(z). ELBO and NLL remain lower bounds; the KL that is reported becomes an upper bound."""
    latent_shape: tuple[int, ...]

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of z (n, B, *E), summed over the event: (n, B), nats."""

    def bound(self, z: Tensor) -> Tensor:
        """``log_prob`` for training, where it enters the loss linearly: (n, B), nats. If that is cheaper, an unbiased
        estimate of a lower bound of log p(z)."""
        return self.log_prob(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        """``log_prob`` for many calls with fixed parameters: what does not depend on z is computed once, here."""
        return self.log_prob

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """n samples, (n, *E), on the prior's device."""

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || p) by group, (B, G), nats, where a closed form exists for this q; else None, and the model estimates
        it from samples."""
        return None

    @property
    def knows_labels(self) -> bool:
        """Whether p(z|y) differs from p(z)."""
        return False

    def given(self, labels: Tensor) -> Density:
        """p(z|y) for labels (B, Y), one-hot: p(z) itself, unless a subclass depends on them."""
        return self

    def attach(self, posterior_of: Callable[[Tensor], Distribution]) -> None:
        """Called once with the function that gives q(z|x) for x (B, C, ...): for priors made of posteriors."""

    def start_from(self, z: Tensor) -> None:
        """Called before its first step with samples of what it will be fitted to, (n, *space.shape): for a
        data-dependent initialization."""


class FixedPrior(Prior):
    """One without parameters.

    Args:
        latent_shape: E, the shape of one z.
    """

    _zero: Tensor
    """Carries the device and the type of samples."""

    def __init__(self, latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.register_buffer("_zero", torch.zeros(()), persistent=False)


def classes_of(data_classes: int | None, class_conditional: bool) -> int | None:
    """Y where the prior is to be conditioned on the class, else None.

    Raises:
        ValueError: the data have no classes.
    """
    if class_conditional and data_classes is None:
        raise ValueError("class_conditional takes data with classes, and these have none")
    return data_classes if class_conditional else None


def sampled_kl(prior: Prior, q: Distribution, n: int) -> Tensor:
    """The plain estimate of KL(q || p) from n samples of q, (B,), nats."""
    z, log_q = q.rsample_with_log_prob(n)
    return (log_q - prior.log_prob(q.prior_value(z))).mean(0)
