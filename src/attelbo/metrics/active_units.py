"""Active units: how many latent dimensions carry information about x.

Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", sec. 5.2.

Shapes: B batch, E the shape of one z, D its number of dimensions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ActiveUnits(Metric):
    """The number of dimensions u with Var_x(E[z_u|x]) above a threshold.

    The variance is that of the population, divided by the number of x. Sums and sums of squares are kept
    in float64, so batches and processes merge by addition. The relative rounding error of the variance is at most 1e-16
    * batches * mean^2 / variance: negligible for latents near a standard normal prior.

    Args:
        latent_shape: E.
        threshold: on the variance; 0.01 in the paper.

    Raises:
        ValueError: a negative threshold.
    """

    full_state_update = False
    n: Tensor
    total: Tensor
    total_of_squares: Tensor

    def __init__(self, latent_shape: Sequence[int], threshold: float = 0.01) -> None:
        super().__init__()
        if threshold < 0:
            raise ValueError(f"threshold must not be negative, got {threshold}")
        self.threshold = threshold
        zeros = torch.zeros(math.prod(latent_shape), dtype=torch.float64)
        self.add_state("n", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("total_of_squares", zeros.clone(), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        """Take in the posterior means E[z|x] of a batch, (B, *E)."""
        mean = mean.flatten(1).double()
        self.n = self.n + len(mean)
        self.total = self.total + mean.sum(0)
        self.total_of_squares = self.total_of_squares + mean.square().sum(0)

    def variance(self) -> Tensor:
        """Var_x(E[z|x]) of each dimension seen by this process, (D,), float64."""
        mean = self.total / self.n
        return (self.total_of_squares / self.n - mean.square()).clamp(min=0)

    def compute(self) -> Tensor:
        return (self.variance() > self.threshold).sum().float()
