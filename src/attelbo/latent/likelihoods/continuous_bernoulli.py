"""The continuous Bernoulli likelihood of data in [0, 1].

Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders"
(arXiv:1907.06845), eqs. 5-8.

Shapes: n samples, B batch, (C, ...) data shape.
"""

import torch
from torch import Tensor

from attelbo.latent.arithmetic import SMALL, full_precision, log_sinhc, sum_event
from attelbo.latent.likelihoods.base import Likelihood


class ContinuousBernoulli(Likelihood):
    """p(x|z) = prod_i C(eta_i) exp(eta_i x_i) on [0, 1]: eta holds logits, lambda = sigmoid(eta) in the paper.

    The normalizer is 1 / C(eta) = (e^eta - 1) / eta, so

        log p(x) = eta (x - 1/2) - log(sinh(a) / a),  a = |eta| / 2,

    which is smooth everywhere; the paper's form, in lambda, is 0/0 at one half and its code cuts out an interval there.
    The second term is what the binary cross-entropy of grey levels lacks to be a likelihood. This is a density: its
    numbers are not comparable with those of discrete likelihoods, and grow without bound on data that are binary.

    Args:
        data_shape: (C, ...).
    """

    discrete = False
    supports = frozenset({"levels"})

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        eta = full_precision(eta)
        return sum_event(eta * (x - 0.5) - log_sinhc(eta.abs() / 2), 2)

    def mean(self, eta: Tensor) -> Tensor:
        """E[x|z] = 1/2 + (coth a - 1/a) / 2 with a = eta / 2: not sigmoid(eta), but nearer to one half."""
        a = full_precision(eta) / 2
        return 0.5 + 0.5 * a.sign() * _langevin(a.abs())

    def sample(self, eta: Tensor) -> Tensor:
        # By the inverse of the distribution function for -|eta|, mirrored where eta is positive.
        eta = full_precision(eta)
        rate = eta.abs().clamp(min=torch.finfo(eta.dtype).tiny)
        x = torch.log1p(torch.rand_like(eta) * torch.expm1(-rate)) / -rate
        return torch.where(eta > 0, 1 - x, x).clamp(0, 1)


def _langevin(a: Tensor) -> Tensor:
    """coth a - 1/a of a >= 0, the derivative of ``log_sinhc``."""
    large, small = a.clamp(min=SMALL), a.clamp(max=SMALL)
    s = small.square()
    near = small * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555)))))
    return torch.where(a < SMALL, near, 1 / torch.tanh(large) - 1 / large)
