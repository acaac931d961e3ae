"""A prior on several independent latents (Dupont 2018, "Learning Disentangled Joint Continuous and Discrete
Representations", sec. 3).

Shapes: n samples, B batch, D numbers in all parts together, G groups.
"""

import torch
from torch import Tensor, nn

from attelbo.latent.distributions import Distribution, Joint
from attelbo.latent.distributions.joint import split_parts
from attelbo.latent.priors.base import Prior
from attelbo.latent.priors.standard_normal import StandardNormal
from attelbo.latent.priors.uniform_categorical import UniformCategorical
from attelbo.latent.spaces import OneHot, Product, Real, Space


class JointPrior(Prior):
    """p(z) = N(z_1; 0, I) prod_c uniform(z_c): standard normal on real numbers, uniform on choices.

    Args:
        space: the parts of z.

    Raises:
        ValueError: a part that is neither real numbers nor choices.
    """

    spaces = (Product,)

    def __init__(self, space: Product) -> None:
        super().__init__()
        self.latent_shape = space.shape
        self._shapes = [part.shape for part in space.parts]
        self.parts = nn.ModuleList(map(_prior_on, space.parts))

    def log_prob(self, z: Tensor) -> Tensor:
        values = split_parts(z, self._shapes)
        return torch.stack([prior.log_prob(value) for prior, value in zip(self._priors(), values, strict=True)]).sum(0)

    def sample(self, n: int) -> Tensor:
        return torch.cat([prior.sample(n).flatten(1) for prior in self._priors()], dim=-1)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """The groups of all parts, in their order, (B, G), nats: each normal dimension, then each choice."""
        if not isinstance(q, Joint):
            return None
        kls = [prior.exact_kl(part) for prior, part in zip(self._priors(), q.parts, strict=True)]
        known = [kl for kl in kls if kl is not None]
        return torch.cat(known, dim=-1) if len(known) == len(kls) else None

    def _priors(self) -> list[Prior]:
        return [prior for prior in self.parts if isinstance(prior, Prior)]


def _prior_on(space: Space) -> Prior:
    if isinstance(space, Real):
        return StandardNormal(space.shape)
    if isinstance(space, OneHot):
        return UniformCategorical(space.shape)
    raise ValueError(f"parts must be real numbers or choices, got {space}")
