"""The Laplace likelihood, whose distortion is the absolute error, with a fixed, a learned or the optimal scale.

The scale is calibrated as that of the normal: Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with
Calibrated Decoders" (arXiv:2006.13202).

Shapes: (C, ...) data shape.
"""

import math

import torch
from torch import Tensor

from attelbo.latent.likelihoods.location_scale import LocationScale


class Laplace(LocationScale):
    """p(x|z) = prod_i exp(-|x_i - eta_i| / s) / (2 s), one s for all dimensions: eta is the mean and the median.
    Arguments and errors are those of :class:`LocationScale`; the standard deviation is sqrt(2) s."""

    power = 1
    log_normalizer = math.log(2)

    def _noise(self, like: Tensor) -> Tensor:
        # By its distribution function; u is in [0, 1), so that neither tail reaches infinity.
        u = torch.rand_like(like)
        sign = torch.rand_like(like).sub(0.5).sign()
        return -sign * torch.log1p(-u)
