"""The normal likelihood, with a fixed, a learned or the optimal standard deviation.

Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders" (arXiv:2006.13202).

Shapes: (C, ...) data shape.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI
from attelbo.latent.likelihoods.location_scale import Calibration, LocationScale, check_calibration


class Normal(LocationScale):
    """p(x|z) = N(x; eta, sigma^2 I), one sigma for all dimensions: eta is the mean.

    Args:
        data_shape: (C, ...).
        sigma: how the standard deviation is found: see :class:`LocationScale`.
        std: its value, or its initial value, in data units.

    Raises:
        ValueError: std not positive and finite, or an unknown sigma.
    """

    power = 2
    log_normalizer = 0.5 * LOG_2PI

    def __init__(self, data_shape: Sequence[int], sigma: Calibration = "optimal", std: float = 1.0) -> None:
        check_calibration("sigma", sigma, "std", std)
        super().__init__(data_shape, sigma, std)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)
