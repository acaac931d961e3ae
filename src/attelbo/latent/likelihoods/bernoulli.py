"""The Bernoulli likelihood of binary data.

Shapes: n samples, B batch, (C, ...) data shape.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import Likelihood


class Bernoulli(Likelihood):
    """p(x|z) = prod_i Bernoulli(x_i; sigmoid(eta_i)): eta holds logits.

    Args:
        data_shape: (C, ...).
        allow_levels: accept grey levels in [0, 1] too. Of these the "log-likelihood" is only a cross-entropy: it is not
            normalized over the levels, bounds nothing, and must not be compared with numbers of binarized data
            (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli"). So a model of them reports no bound.
        data_kind: of the data, "binary" or "levels".
    """

    n_levels = 2

    def __init__(self, data_shape: Sequence[int], allow_levels: bool = False, data_kind: str = "binary") -> None:
        super().__init__(data_shape)
        self.normalized = data_kind == "binary"
        self.supports = frozenset({"binary", "levels"} if allow_levels else {"binary"})

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        eta = full_precision(eta)
        return -sum_event(F.binary_cross_entropy_with_logits(eta, x.expand_as(eta), reduction="none"), 2)

    def log_table(self, eta: Tensor) -> Tensor:
        return F.logsigmoid(torch.stack([-full_precision(eta), full_precision(eta)], -1))

    def mean(self, eta: Tensor) -> Tensor:
        return full_precision(eta).sigmoid()

    def sample(self, eta: Tensor) -> Tensor:
        return torch.bernoulli(self.mean(eta))
