"""The uniform prior on one-hot latents (Jang, Gu & Poole 2017, "Categorical Reparameterization with Gumbel-Softmax").

Shapes: n samples, B batch, G variables of K classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.distributions import Distribution, OneHotCategorical
from attelbo.latent.priors.base import FixedPrior
from attelbo.latent.spaces import OneHot


class UniformCategorical(FixedPrior):
    """p(z) = K^-G for each of the one-hot z. The KL of a categorical posterior is exact.

    Args:
        latent_shape: (G, K).
    """

    spaces = (OneHot,)

    def log_prob(self, z: Tensor) -> Tensor:
        """-G log K, for relaxed z too: sum_k z_k log(1/K)."""
        n_variables, n_classes = self.latent_shape
        return z.new_full(z.shape[:2], -n_variables * math.log(n_classes))

    def sample(self, n: int) -> Tensor:
        n_variables, n_classes = self.latent_shape
        choices = torch.randint(n_classes, (n, n_variables), device=self._zero.device)
        return F.one_hot(choices, n_classes).to(self._zero.dtype)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """log K less the entropy of each variable, (B, G), nats, for a relaxed q that of its categorical."""
        if not isinstance(q, OneHotCategorical):
            return None
        return (q.log_probs.exp() * (q.log_probs + math.log(self.latent_shape[-1]))).sum(-1)
