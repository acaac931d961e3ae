"""The uniform prior over codes (van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning",
sec. 3.1).

Shapes: n samples, B batch, S the positions of codes, K codes.
"""

import math

import torch
from torch import Tensor

from attelbo.latent.distributions import Distribution, Quantized
from attelbo.latent.priors.base import Prior
from attelbo.latent.spaces import Codes


class UniformCodes(Prior):
    """p(codes) = 1 / K at each position: what an autoencoder is trained with before another prior is fitted.

    Args:
        space: S and K.
    """

    spaces = (Codes,)
    _zero: Tensor

    def __init__(self, space: Codes) -> None:
        super().__init__()
        self.latent_shape = space.shape
        self.n_codes = space.n_codes
        # Knows the device, and the type that probabilities are wanted in.
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        return self._zero.new_full(z.shape[:2], -math.prod(self.latent_shape) * math.log(self.n_codes))

    def sample(self, n: int) -> Tensor:
        return torch.randint(self.n_codes, (n, *self.latent_shape), device=self._zero.device)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """log K for each position, whatever the code, (B, positions), nats."""
        if not isinstance(q, Quantized):
            return None
        return self._zero.new_full((len(q.codes), math.prod(self.latent_shape)), math.log(self.n_codes))
