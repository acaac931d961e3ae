"""The categorical likelihood of 8-bit data: a softmax over the levels of each pixel.

van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel Recurrent Neural Networks" (arXiv:1601.06759).

Shapes: n samples, B batch, (C, ...) data shape, P = 256 parameters for each dimension of x.
"""

import torch
from torch import Tensor

from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import LEVELS, Likelihood, all_levels


class CategoricalLevels(Likelihood):
    """p(x|z) = prod_i softmax(eta_i)[255 x_i] over the 256 levels 0, 1/255, ..., 1.

    eta holds the logits of the levels. No shape is assumed, so neighbouring levels share nothing. Memory: the decoder's
    output is 256 times as large as x.

    Args:
        data_shape: (C, ...).
    """

    n_parameters = LEVELS
    n_levels = LEVELS
    supports = frozenset({"binary", "levels"})

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        logits, dim = self._logits(eta)
        level = ((LEVELS - 1) * x).round().long().unsqueeze(dim).expand(*logits.shape[:2], 1, *x.shape[1:])
        # Not log_softmax, whose output would be saved for the backward pass in addition to its input.
        return sum_event(logits.gather(dim, level).squeeze(dim) - logits.logsumexp(dim), 2)

    def log_table(self, eta: Tensor) -> Tensor:
        logits, dim = self._logits(eta)
        return logits.movedim(dim, -1).log_softmax(-1)

    def mean(self, eta: Tensor) -> Tensor:
        logits, dim = self._logits(eta)
        return (logits.softmax(dim).movedim(dim, -1) * all_levels(logits)).sum(-1)

    def sample(self, eta: Tensor) -> Tensor:
        logits, dim = self._logits(eta)
        # By the distribution function: one random number for each pixel, where torch.multinomial draws 256.
        cumulative = logits.softmax(dim).movedim(dim, -1).cumsum(-1)  # (..., C, ..., P)
        total = cumulative[..., -1:]
        level = torch.searchsorted(cumulative, torch.rand_like(total) * total, right=True).squeeze(-1)
        return level.clamp(max=LEVELS - 1).to(logits.dtype) / (LEVELS - 1)

    def _logits(self, eta: Tensor) -> tuple[Tensor, int]:
        """eta (..., P * C, ...) as (..., P, C, ...), and where the levels are."""
        channels = -len(self.data_shape)
        return full_precision(eta).unflatten(channels, (LEVELS, self.data_shape[0])), channels - 1
