"""The normal likelihood, with a fixed, a learned or the optimal standard deviation.

Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders" (arXiv:2006.13202).

Shapes: (C, ...) data shape.
"""

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI
from attelbo.latent.likelihoods.location_scale import LocationScale


class Normal(LocationScale):
    """p(x|z) = N(x; eta, s^2 I), one s for all dimensions: eta is the mean. Arguments and errors are those of
    :class:`LocationScale`; the scale s is the standard deviation."""

    power = 2
    log_normalizer = 0.5 * LOG_2PI

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)
