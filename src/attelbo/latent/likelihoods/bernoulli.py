"""The Bernoulli likelihood of binary data.

Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv:1509.00519), whose code starts the bias of
the decoder's output at the logits of the base rates.

Shapes: n samples, B batch, (C, ...) data shape.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import Likelihood

_RAREST = 1e-3
"""The least base rate: smaller ones would begin where the gradient of a sigmoid vanishes."""


class Bernoulli(Likelihood):
    """p(x|z) = prod_i Bernoulli(x_i; sigmoid(eta_i + b_i)): eta holds logits.

    Args:
        data_shape: (C, ...).
        allow_levels: accept grey levels in [0, 1] too. Of these the "log-likelihood" is only a cross-entropy: it is not
            normalized over the levels, bounds nothing, and must not be compared with numbers of binarized data
            (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli"). So a model of them reports no bound.
        data_kind: of the data, "binary" or "levels".
        base_rates: b are the logits of the base rates, the mean of the training rows, within 0.001 .. 0.999: a decoder
            that gives zeros, as an untrained one about does, has learned which pixels are always black, and any decoder
            learns what is different from that. If not, b is 0. A constant beside eta is a start of the output's bias,
            for all kinds of decoders, convolutional ones and canvases too.
    """

    n_levels = 2
    base_logits: Tensor

    def __init__(
        self,
        data_shape: Sequence[int],
        allow_levels: bool = False,
        data_kind: str = "binary",
        base_rates: bool = False,
    ) -> None:
        super().__init__(data_shape)
        self.needs_mean = base_rates
        if base_rates:
            self.register_buffer("base_logits", torch.zeros(self.data_shape))
        self.normalized = data_kind == "binary"
        self.supports = frozenset({"binary", "levels"} if allow_levels else {"binary"})

    def learn_mean(self, mean: Tensor) -> None:
        """Take the base rates; they stay what they are in a model that has learned some, from the same rows or others:
        its decoder has learned the difference from those."""
        if not self.base_logits.any():
            self.base_logits.copy_(mean.clamp(_RAREST, 1 - _RAREST).logit())

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        logits = self._logits(eta)
        return -sum_event(F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none"), 2)

    def log_table(self, eta: Tensor) -> Tensor:
        logits = self._logits(eta)
        return F.logsigmoid(torch.stack([-logits, logits], -1))

    def mean(self, eta: Tensor) -> Tensor:
        return self._logits(eta).sigmoid()

    def sample(self, eta: Tensor) -> Tensor:
        return torch.bernoulli(self.mean(eta))

    def _logits(self, eta: Tensor) -> Tensor:
        return full_precision(eta) + self.base_logits if self.needs_mean else full_precision(eta)
