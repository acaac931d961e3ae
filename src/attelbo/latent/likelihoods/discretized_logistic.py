"""The discretized logistic likelihood of 8-bit data.

Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow", sec. 5.2;
Salimans et al. 2017, "PixelCNN++", eq. 2, with one component and no dependence between channels.

Shapes: n samples, B batch, (C, ...) data shape, P = 2 parameters for each dimension of x.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import LEVELS, Likelihood, all_levels

LOG_SCALE_BOUND = 7.0
"""The log scale is clamped to [-7, 7], on PixelCNN++'s scale where x runs from -1 to 1."""


class DiscretizedLogistic(Likelihood):
    """p(x|z) = prod_i P(X_i falls into the bin of x_i), X_i logistic, over the 256 levels 0, 1/255, ..., 1.

    eta holds (mean, log scale) of X_i for x stretched to [-1, 1], so that eta = 0 is a broad distribution
    around mid-grey. The first and the last bin reach to infinity, so the levels' probabilities sum to one.

    With a and b the standardized edges of a bin,

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)),

    which is exact and free of cancellation everywhere. PixelCNN++'s code subtracts the two sigmoids
    instead and switches to density times width where their difference is below 1e-5.

    Args:
        data_shape: (C, ...).
    """

    n_parameters = 2
    n_levels = LEVELS
    supports = frozenset({"binary", "levels"})

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return sum_event(log_bin_probability(x, *self._mean_and_log_scale(eta)), 2)

    def log_table(self, eta: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(eta)
        return log_bin_probability(all_levels(mean), mean.unsqueeze(-1), log_scale.unsqueeze(-1))

    def mean(self, eta: Tensor) -> Tensor:
        """E[X clipped to the range], in data units: off from the mean over the levels by the rounding only,
        at most half a level (1/510)."""
        return clipped_mean(*self._mean_and_log_scale(eta))

    def sample(self, eta: Tensor) -> Tensor:
        return sample_level(*self._mean_and_log_scale(eta))

    def _mean_and_log_scale(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.split(full_precision(eta))
        return mean, log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)


def log_bin_probability(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(X falls into the bin of x), x in data units, X logistic on the scale from -1 to 1; elementwise."""
    precision = (-log_scale).exp()
    half_width = precision / (LEVELS - 1)
    centre = (2 * x - 1 - mean) * precision
    # Which bins have an edge on that side; with half a level of tolerance, since x may be rounded.
    has_lower = (x > 0.5 / (LEVELS - 1)).to(mean.dtype)
    has_upper = (x < 1 - 0.5 / (LEVELS - 1)).to(mean.dtype)
    log_p = F.logsigmoid(centre + half_width) * has_upper
    log_p = torch.addcmul(log_p, F.logsigmoid(half_width - centre), has_lower)
    return torch.addcmul(log_p, (-torch.expm1(-2 * half_width)).log(), has_lower * has_upper)


def clipped_mean(mean: Tensor, log_scale: Tensor) -> Tensor:
    """E[X clipped to the range], in data units; elementwise."""
    mean, scale = (mean + 1) / 2, log_scale.exp() / 2
    # The integral of the survival function over [0, 1], for a mean below 1/2: of a far one both terms vanish, where
    # above 1/2 they would be large and cancel.
    below = torch.minimum(mean, 1 - mean)
    clipped = scale * (F.softplus(below / scale) - F.softplus((below - 1) / scale))
    return torch.where(mean < 0.5, clipped, 1 - clipped)


def sample_level(mean: Tensor, log_scale: Tensor) -> Tensor:
    """The level into whose bin a draw of X falls, in data units; elementwise."""
    x = (torch.addcmul(mean, log_scale.exp(), torch.rand_like(mean).logit()) + 1) / 2
    return (x * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)
