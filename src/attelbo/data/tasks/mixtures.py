"""Points of mixtures of normal distributions, whose parameters are to be found: amortized clustering.

Source: Lee et al. 2019, "Set Transformer", section 5.3 and the authors' code: four components in the plane, weights
from a flat Dirichlet distribution, means uniform on [-4, 4)^2, standard deviations 0.3; 300 to 599 points. There all
sets of a minibatch have one size; here each has its own.

Shapes: n sets, N points in the largest, D dimensions, K components. Units: nats per point.
"""

import math

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import DataSpec
from attelbo.data.tasks.sets import Sets, SetTask, there_are


class Mixtures(SetTask):
    """x: points of a mixture; y: their mean log-density under it, which no estimate can be expected to beat by more
    than its fit to the points at hand.

    Args:
        n_components: K.
        dim: D.
        smallest_set: the fewest points of a set.
        largest_set: N.
        spread: means are uniform on [-spread, spread)^D.
        std: of each component in each dimension.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        n_components: int = 4,
        dim: int = 2,
        smallest_set: int = 300,
        largest_set: int = 599,
        spread: float = 4.0,
        std: float = 0.3,
    ) -> None:
        check_at_least(1, n_components=n_components, dim=dim, smallest_set=smallest_set)
        check_at_least(smallest_set, largest_set=largest_set)
        if not (spread > 0 and std > 0):
            raise ValueError(f"spread and std must be above 0, got {spread} and {std}")
        self.n_components = n_components
        self.dim = dim
        self.smallest_set = smallest_set
        self.largest_set = largest_set
        self.spread = spread
        self.std = std

    def spec(self, name: str) -> DataSpec:
        target = DataSpec("log-density", (), "real")
        return DataSpec(name, (self.largest_set, self.dim), "set", target=target)

    def draw(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Sets:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(n, *shape, device=device, generator=generator)

        size = torch.randint(self.smallest_set, self.largest_set + 1, (n,), device=device, generator=generator)
        # Exponential variables over their sum are a flat Dirichlet one; 1 - u is never zero.
        weights = -torch.log1p(-uniform(self.n_components))
        weights = weights / weights.sum(1, keepdim=True)
        means = self.spread * (2 * uniform(self.n_components, self.dim) - 1)
        chosen = (uniform(self.largest_set, 1) >= weights.cumsum(1).unsqueeze(1)).sum(-1)
        chosen = chosen.clamp(max=self.n_components - 1)  # the sum of the weights may be rounded to below one
        noise = torch.randn(n, self.largest_set, self.dim, device=device, generator=generator)
        points = torch.take_along_dim(means, chosen.unsqueeze(-1), 1) + self.std * noise
        there = there_are(size, self.largest_set)
        density = (self._log_density(points, weights, means) * there).sum(1) / size
        return Sets(points * there.unsqueeze(-1), size, density)

    def _log_density(self, points: Tensor, weights: Tensor, means: Tensor) -> Tensor:
        """log p of points (n, N, D) under the mixture with these weights (n, K) and means (n, K, D): (n, N)."""
        distance = ((points.unsqueeze(2) - means.unsqueeze(1)) / self.std).square().sum(-1)  # (n, N, K)
        constant = self.dim * (math.log(self.std) + 0.5 * math.log(2 * math.pi))
        return (weights.log().unsqueeze(1) - 0.5 * distance).logsumexp(-1) - constant
