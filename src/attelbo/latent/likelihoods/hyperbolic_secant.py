"""The hyperbolic secant likelihood, whose distortion is log cosh of the error: quadratic for small errors, linear for
large ones (Chen, Chen & Zhang 2018, "Log Hyperbolic Cosine Loss Improves Variational
Auto-Encoder").

The scale is calibrated like that of the normal: Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training
with Calibrated Decoders" (arXiv:2006.13202).

Shapes: n samples, B batch, (C, ...) data shape, N its number of dimensions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.likelihoods.location_scale import LocationScale

_LARGEST = 1.3
"""Of the a below: a m(a) = 1 has its root between 1 and 1 / (1 - max_t t (1 - tanh t)) = 1.279, whatever the errors."""


class HyperbolicSecant(LocationScale):
    """p(x|z) = prod_i sech(pi (x_i - eta_i) / (2 s)) / (2 s), one s for all dimensions: eta is the mean, s the standard
    deviation. Arguments and errors are those of :class:`LocationScale`.

    The optimal s of a batch has no closed form: with t the absolute errors over their mean e and s = pi e / (2 a), it
    is where a m(a) = 1, m(a) = mean t tanh(a t). Three steps of Newton's method give log a to float precision. The
    running scale is the mean of s.

    Differs from the paper: its loss is -log p(x|z) / a at a fixed a = pi / (2 s), without the normalizer.
    """

    power = 1

    def _error(self, eta: Tensor, x: Tensor) -> Tensor:
        """|x_i - eta_i|, (n, B, N)."""
        return (full_precision(eta) - x).abs().flatten(2)

    def _best(self, error: Tensor) -> Tensor:
        mean = error.mean()
        t = error / mean.clamp(min=torch.finfo(error.dtype).tiny)
        a = torch.full_like(mean, 1.1)
        for _ in range(3):
            tanh = (a * t).tanh()
            m = (t * tanh).mean()
            slope = 1 + a * (t.square() * (1 - tanh.square())).mean() / m
            a = (a * (-(a * m).log() / slope).exp()).nan_to_num(_LARGEST).clamp(1, _LARGEST)
        return 0.5 * math.pi * mean / a

    def _log_density(self, error: Tensor, log_scale: Tensor) -> Tensor:
        y = 0.5 * math.pi * error * (-log_scale).exp()
        log_2_cosh = y + F.softplus(-2 * y)
        return -(log_2_cosh + log_scale).sum(-1)

    def _noise(self, like: Tensor) -> Tensor:
        # By inverting the distribution function; 1 - u is in (0, 1], so that neither tail reaches infinity.
        u = torch.rand_like(like)
        sign = torch.rand_like(like).sub(0.5).sign()
        return -sign * (2 / math.pi) * (0.25 * math.pi * (1 - u)).tan().log()
