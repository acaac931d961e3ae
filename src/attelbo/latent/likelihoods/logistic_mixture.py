"""The discretized mixture of logistics of 8-bit data (Salimans et al. 2017, "PixelCNN++", arXiv:1701.05517, eqs. 1-2).

Shapes: n samples, B batch, (C, ...) data shape, M components, P = 3 M parameters for each dimension of x.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import LEVELS, Likelihood, all_levels
from attelbo.latent.likelihoods.discretized_logistic import (
    LOG_SCALE_BOUND,
    clipped_mean,
    log_bin_probability,
    sample_level,
)


class LogisticMixture(Likelihood):
    """p(x|z) = prod_i sum_m pi_im P(X_im falls into the bin of x_i), X_im logistic, over 256 levels 0, 1/255, ..., 1.

    eta holds, for each dimension of x, M logits of the weights, M means and M log scales, each as in
    :class:`~attelbo.latent.DiscretizedLogistic`. The components' means are offsets from M points spread over the range:
    with equal means, as an output layer near zero would give, all components would receive the same gradient.

    Given z the channels of a pixel are independent, each a mixture of its own. In PixelCNN++ they share the component,
    and the means of the later channels are linear in the earlier: a decoder of a whole image can leave that to z.

    Args:
        data_shape: (C, ...).
        n_components: M.

    Raises:
        ValueError: n_components below 1.
    """

    n_levels = LEVELS
    supports = frozenset({"binary", "levels"})
    _spread: Tensor

    def __init__(self, data_shape: Sequence[int], n_components: int = 5) -> None:
        super().__init__(data_shape)
        check_at_least(1, n_components=n_components)
        self.n_components = n_components
        self.n_parameters = 3 * n_components
        spread = (2 * torch.arange(n_components) + 1.0) / n_components - 1
        self.register_buffer("_spread", spread.view(-1, *[1] * len(self.data_shape)), persistent=False)

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        logits, mean, log_scale, dim = self._components(eta)
        log_p = log_bin_probability(x.unsqueeze(dim), mean, log_scale)
        return sum_event((log_p + logits.log_softmax(dim)).logsumexp(dim), 2)

    def log_table(self, eta: Tensor) -> Tensor:
        logits, mean, log_scale, dim = self._components(eta)
        log_p = log_bin_probability(all_levels(mean), mean.unsqueeze(-1), log_scale.unsqueeze(-1))
        return (log_p + logits.log_softmax(dim).unsqueeze(-1)).logsumexp(dim - 1)

    def mean(self, eta: Tensor) -> Tensor:
        """The mean of the components' means, each off by at most half a level (1/510), as for one logistic."""
        logits, mean, log_scale, dim = self._components(eta)
        return (logits.softmax(dim) * clipped_mean(mean, log_scale)).sum(dim)

    def sample(self, eta: Tensor) -> Tensor:
        logits, mean, log_scale, dim = self._components(eta)
        gumbel = -(-torch.rand_like(logits).log()).log()
        component = (logits + gumbel).argmax(dim, keepdim=True)
        return sample_level(mean.gather(dim, component), log_scale.gather(dim, component)).squeeze(dim)

    def _components(self, eta: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Logits, means and log scales (..., M, C, ...), and where the components are."""
        channels = -len(self.data_shape)
        parameters = full_precision(eta).unflatten(channels, (3, self.n_components, self.data_shape[0]))
        logits, mean, log_scale = parameters.unbind(channels - 2)
        log_scale = log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)
        return logits, mean + self._spread, log_scale, channels - 1
