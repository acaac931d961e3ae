"""Categorical distributions over one-hot latents, and their continuous relaxation.

Jang, Gu & Poole 2017, "Categorical Reparameterization with Gumbel-Softmax", eq. 1-2; Maddison et al. 2017, "The
Concrete Distribution", arXiv:1611.00712.

Shapes: n samples, B batch, G variables, K classes of each.
"""

from typing import Self

import torch
from torch import Tensor

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions.base import Distribution


class OneHotCategorical(Distribution):
    """G independent choices among K for each row, as one-hot vectors, from unnormalized log-probabilities (B, G, K).

    No gradient flows through a sample: q is trained through :class:`RelaxedOneHot`.
    """

    reparametrized = False

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = full_precision(logits).log_softmax(-1)
        """Normalized, (B, G, K)."""

    @property
    def mean(self) -> Tensor:
        """The most probable choices, one-hot: the vector of probabilities is not in the space."""
        return _one_hot(self.log_probs)

    def rsample(self, n: int) -> Tensor:
        return _one_hot(self._perturbed(n))

    def log_prob(self, z: Tensor) -> Tensor:
        return (z * self.log_probs).sum((-2, -1))

    def stop_gradient(self) -> Self:
        return type(self)(self.log_probs.detach())

    def _perturbed(self, n: int) -> Tensor:
        """log-probabilities with Gumbel noise, (n, B, G, K): the argmax over K is a sample of the categorical."""
        noise = torch.empty((n, *self.log_probs.shape), dtype=self.log_probs.dtype, device=self.log_probs.device)
        return self.log_probs - noise.exponential_().log()


class RelaxedOneHot(OneHotCategorical):
    """z = softmax((log pi + Gumbel noise) / temperature) in place of one-hot samples, so that gradients flow through z.

    Its log-probability is sum_k z_k log pi_k, that of the categorical at the corners. It is *not* the density of z
    (Maddison et al. 2017, eq. 1): training optimizes a surrogate of the bound of the discrete model (the KL too is that
    of the categorical, as in the code of Jang et al.), and evaluation draws true samples.

    Args:
        logits: unnormalized log-probabilities, (B, G, K).
        temperature: a scalar; towards 0, z becomes one-hot and the variance of its gradient diverges.
        hard: one-hot samples, with the gradient of the relaxed ones ("straight-through").
    """

    def __init__(self, logits: Tensor, temperature: Tensor, hard: bool = False) -> None:
        super().__init__(logits)
        self.temperature = temperature
        self.hard = hard

    def rsample(self, n: int) -> Tensor:
        relaxed = (self._perturbed(n) / self.temperature).softmax(-1)
        return relaxed + (_one_hot(relaxed) - relaxed).detach() if self.hard else relaxed

    def stop_gradient(self) -> Self:
        return type(self)(self.log_probs.detach(), self.temperature, self.hard)


def _one_hot(scores: Tensor) -> Tensor:
    """The largest of the last dimension as a one-hot vector of the scores' type."""
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
