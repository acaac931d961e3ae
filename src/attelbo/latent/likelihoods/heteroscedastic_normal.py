"""The normal likelihood whose standard deviation is a function of z too, and stays above a floor.

Garnelo et al. 2018, "Conditional Neural Processes" (arXiv:1807.01613), the authors' code: std = 0.1 + 0.9 softplus(.).

Shapes: n samples, B batch, (C, ...) data shape, P = 2 parameters for each dimension of x.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import LOG_2PI, full_precision, sum_event
from attelbo.latent.likelihoods.base import Likelihood


class HeteroscedasticNormal(Likelihood):
    """p(x|z) = prod_i N(x_i; m_i, s_i^2), s = f + (1 - f) softplus(.): eta holds the mean and the argument of softplus.

    Without the floor f the density is unbounded, where a point is predicted exactly. With it, no density is above
    -log(f sqrt(2 pi)), 1.384 nats for f = 0.1. This is a density: its NLL is not comparable with those of discrete
    likelihoods.

    Args:
        data_shape: (C, ...).
        smallest_std: f, in data units.

    Raises:
        ValueError: f outside (0, 1).
    """

    discrete = False
    supports = frozenset({"binary", "levels", "real"})
    n_parameters = 2

    def __init__(self, data_shape: Sequence[int], smallest_std: float = 0.1) -> None:
        super().__init__(data_shape)
        if not 0 < smallest_std < 1:
            raise ValueError(f"smallest_std must be in (0, 1), got {smallest_std}")
        self.smallest_std = smallest_std

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        mean, std = self.mean_std(eta)
        return sum_event(-0.5 * (((x - mean) / std).square() + LOG_2PI) - std.log(), 2)

    def mean(self, eta: Tensor) -> Tensor:
        return self.split(full_precision(eta))[0]

    def sample(self, eta: Tensor) -> Tensor:
        mean, std = self.mean_std(eta)
        return torch.addcmul(mean, std, torch.randn_like(mean))

    def mean_std(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each dimension of x, (..., C, ...), in data units."""
        mean, scale = self.split(full_precision(eta))
        return mean, self.smallest_std + (1 - self.smallest_std) * F.softplus(scale)
