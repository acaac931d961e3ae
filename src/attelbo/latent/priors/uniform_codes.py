"""The uniform prior over codes (van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning",
sec. 3.1).

Shapes: n samples, B batch, S the positions of codes, K codes.
"""

import math

import torch
from torch import Tensor

from attelbo.latent.distributions import Distribution, Quantized
from attelbo.latent.priors.base import FixedPrior
from attelbo.latent.spaces import Codes


class UniformCodes(FixedPrior):
    """p(codes) = 1 / K at each position: the prior during the training of an autoencoder, before another one is fitted.

    Args:
        space: S and K.
    """

    spaces = (Codes,)

    def __init__(self, space: Codes) -> None:
        super().__init__(space.shape)
        self.n_codes = space.n_codes

    def log_prob(self, z: Tensor) -> Tensor:
        return self._zero.new_full(z.shape[:2], -math.prod(self.latent_shape) * math.log(self.n_codes))

    def sample(self, n: int) -> Tensor:
        return torch.randint(self.n_codes, (n, *self.latent_shape), device=self._zero.device)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """log K for each position, whatever the code, (B, positions), nats."""
        if not isinstance(q, Quantized):
            return None
        return self._zero.new_full((len(q.codes), math.prod(self.latent_shape)), math.log(self.n_codes))
