"""The Laplace likelihood, whose distortion is the absolute error, with a fixed, a learned or the optimal scale.

The scale is calibrated as that of the normal: Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with
Calibrated Decoders" (arXiv:2006.13202).

Shapes: (C, ...) data shape.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.latent.likelihoods.location_scale import Calibration, LocationScale, check_calibration


class Laplace(LocationScale):
    """p(x|z) = prod_i exp(-|x_i - eta_i| / b) / (2 b), one b for all dimensions: eta is the mean and the median.

    Args:
        data_shape: (C, ...).
        scale: how b is found: see :class:`LocationScale`.
        b: its value, or its initial value, in data units; the standard deviation is sqrt(2) b.

    Raises:
        ValueError: b not positive and finite, or an unknown scale.
    """

    power = 1
    log_normalizer = math.log(2)

    def __init__(self, data_shape: Sequence[int], scale: Calibration = "optimal", b: float = 1.0) -> None:
        check_calibration("scale", scale, "b", b)
        super().__init__(data_shape, scale, b)

    def _noise(self, like: Tensor) -> Tensor:
        # By its distribution function; u is in [0, 1), so that neither tail reaches infinity.
        u = torch.rand_like(like)
        sign = torch.rand_like(like).sub(0.5).sign()
        return -sign * torch.log1p(-u)
