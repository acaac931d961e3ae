"""The beta-binomial likelihood of 8-bit data, as in bits-back coding of grey-level images.

Townsend, Bird & Barber 2019, "Practical Lossless Compression with Latent Variables using Bits Back Coding"
(arXiv:1901.04866).

Shapes: n samples, B batch, (C, ...) data shape, P = 2 parameters for each dimension of x.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import LEVELS, Likelihood

TRIALS = LEVELS - 1

LOG_CONCENTRATION_BOUND = 10.0
"""log a and log b are clamped to [-10, 10]: beyond, all mass is at the ends, or it is a binomial already."""


class BetaBinomial(Likelihood):
    """p(x|z) = prod_i BetaBinomial(255 x_i; 255, a_i, b_i) over the 256 levels 0, 1/255, ..., 1.

    eta holds (log a, log b), so eta = 0 makes all levels equally likely. A level k has the probability

        (255 over k) B(k + a, 255 - k + b) / B(a, b),

    whose logarithm is a few nats and a difference of terms in the thousands: it is computed in float64.

    Args:
        data_shape: (C, ...).
    """

    n_parameters = 2
    n_levels = LEVELS
    supports = frozenset({"binary", "levels"})

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        a, b = self._concentrations(eta.double())
        level = (TRIALS * x.double()).round()
        log_p = _log_beta(level + a, TRIALS - level + b) - _log_beta(a, b)
        log_choose = -_log_beta(level + 1, TRIALS - level + 1) - math.log(TRIALS + 1)
        return sum_event(log_p + log_choose, 2).to(full_precision(eta).dtype)

    def log_table(self, eta: Tensor) -> Tensor:
        """By the ratio of neighbouring levels, p(k + 1) / p(k) = (255 - k) (k + a) / ((k + 1) (254 - k + b)): no
        lgamma."""
        a, b = (parameter.unsqueeze(-1) for parameter in self._concentrations(full_precision(eta)))
        k = torch.arange(TRIALS, dtype=a.dtype, device=a.device)
        log_ratio = ((TRIALS - k) / (k + 1) * (k + a) / (TRIALS - 1 - k + b)).log()
        return F.pad(log_ratio.cumsum(-1), (1, 0)).log_softmax(-1)

    def mean(self, eta: Tensor) -> Tensor:
        """a / (a + b)."""
        log_a, log_b = self._log_concentrations(full_precision(eta))
        return (log_a - log_b).sigmoid()

    def sample(self, eta: Tensor) -> Tensor:
        eta = full_precision(eta)
        p = Beta(*self._concentrations(eta), validate_args=False).sample()
        return torch.binomial(torch.full_like(p, TRIALS), p) / TRIALS

    def _log_concentrations(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        log_a, log_b = self.split(eta.clamp(-LOG_CONCENTRATION_BOUND, LOG_CONCENTRATION_BOUND))
        return log_a, log_b

    def _concentrations(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        log_a, log_b = self._log_concentrations(eta)
        return log_a.exp(), log_b.exp()


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
