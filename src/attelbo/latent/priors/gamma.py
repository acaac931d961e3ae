"""The gamma prior on positive latents (Naesseth, Ruiz, Linderman & Blei 2017, arXiv:1610.05683).

Shapes: n samples, B batch, D dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.checks import check_positive
from attelbo.latent.distributions import Distribution, Gamma
from attelbo.latent.priors.base import FixedPrior
from attelbo.latent.spaces import Positive


class GammaPrior(FixedPrior):
    """p(z) = prod_d Gamma(z_d; concentration, rate). The KL of a gamma posterior is exact.

    Args:
        latent_shape: (D,).
        concentration: of each dimension; its mean is concentration / rate.
        rate: of each dimension.

    Raises:
        ValueError: a concentration or a rate that is not positive and finite.
    """

    spaces = (Positive,)

    def __init__(self, latent_shape: Sequence[int], concentration: float = 2.0, rate: float = 1.0) -> None:
        super().__init__(latent_shape)
        check_positive(concentration=concentration, rate=rate)
        self.concentration = concentration
        self.rate = rate

    def log_prob(self, z: Tensor) -> Tensor:
        return self._of_rows(1).log_prob(z)

    def sample(self, n: int) -> Tensor:
        return self._of_rows(n).rsample(1)[0]

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || p) of a gamma posterior by dimension, (B, D), nats."""
        return q.divergence_from(self.concentration, self.rate) if isinstance(q, Gamma) else None

    def _of_rows(self, n: int) -> Gamma:
        concentration = self._zero.new_full((n, *self.latent_shape), self.concentration)
        return Gamma(concentration, torch.full_like(concentration, self.rate))
