"""The wrapped normal prior at the origin of the Poincare ball (Mathieu et al. 2019, arXiv:1901.06033, sec. 3.1; Nagano
et al. 2019, arXiv:1902.02992).

Shapes: n samples, B batch, D dimensions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.checks import check_positive
from attelbo.latent.arithmetic import LOG_2PI
from attelbo.latent.hyperbolic import log_volume
from attelbo.latent.priors.base import FixedPrior
from attelbo.latent.spaces import Ball


class WrappedNormalPrior(FixedPrior):
    """p(z): the distance and direction of z from the origin are those of N(0, std^2 I). No closed-form KL exists.

    Points are written as in ``attelbo.latent.hyperbolic``; the density is with respect to the hyperbolic volume.

    Args:
        latent_shape: (D,).
        space: the ball, for its curvature.
        std: of the normal.

    Raises:
        ValueError: a std that is not positive and finite.
    """

    spaces = (Ball,)

    def __init__(self, latent_shape: Sequence[int], space: Ball, std: float = 1.0) -> None:
        super().__init__(latent_shape)
        check_positive(std=std)
        self.curvature = space.curvature
        self.std = std

    def log_prob(self, z: Tensor) -> Tensor:
        normalizer = z.shape[-1] * (0.5 * LOG_2PI + math.log(self.std))
        return -0.5 * (z / self.std).square().sum(-1) - normalizer - log_volume(z, self.curvature)

    def sample(self, n: int) -> Tensor:
        shape = (n, *self.latent_shape)
        return self.std * torch.randn(shape, dtype=self._zero.dtype, device=self._zero.device)
