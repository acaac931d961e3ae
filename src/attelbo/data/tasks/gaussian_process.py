"""Curves from Gaussian processes, each with kernel parameters of its own.

Setting: Lee et al. 2020, "Bootstrapping Neural Processes" (arXiv:2008.02956), and Nguyen & Grover 2022
(arXiv:2207.04179), in their code: length l ~ U(0.1, 0.6), scale s ~ U(0.1, 1), period p ~ U(0.1, 0.5), noise 0.02,
places uniform on [-2, 2]; 3 to 46 points of context, and 3 to 49 less that many targets. There all curves of a
minibatch have the same numbers of points; here each has its own.

Shapes: n curves, N points.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from attelbo.data.batch import DataSpec
from attelbo.data.tasks.functions import FunctionTask, Sizes
from attelbo.errors import ConfigError

Kernel = Literal["rbf", "matern", "periodic"]

Interval = Sequence[float]
"""From one number to another."""


def rbf(distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """exp(-d^2 / (2 l^2))."""
    return (-0.5 * (distance / length).square()).exp()


def matern(distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """Of smoothness 5/2: (1 + r + r^2 / 3) exp(-r), r = sqrt(5) d / l."""
    r = math.sqrt(5) * distance / length
    return (1 + r + r.square() / 3) * (-r).exp()


def periodic(distance: Tensor, length: Tensor, period: Tensor) -> Tensor:
    """exp(-2 sin^2(pi d / p) / l^2)."""
    return (-2 * ((math.pi * distance / period).sin() / length).square()).exp()


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "rbf": rbf,
    "matern": matern,
    "periodic": periodic,
}
"""Name -> (distance, length, period) -> correlation."""


class GaussianProcess(FunctionTask):
    """y ~ N(0, s^2 k(x, x') + noise^2 I), with l, s and p drawn for each curve.

    Args:
        kernel: k: rbf, matern (of smoothness 5/2) or periodic.
        other_kernels: those that a model of these curves is tested on too.
        max_points: N, of context and targets together.
        min_context: points of the smallest context.
        min_target: of the fewest targets.
        half_width: places are uniform on [-half_width, half_width].
        length: the interval of l.
        scale: that of s.
        period: that of p.
        noise: standard deviation.

    Raises:
        ValueError: a number is out of range, no such kernel.
        ConfigError: when curves are drawn, if the noise is too small for float64.
    """

    def __init__(
        self,
        kernel: Kernel = "rbf",
        other_kernels: Sequence[Kernel] = (),
        max_points: int = 49,
        min_context: int = 3,
        min_target: int = 3,
        half_width: float = 2.0,
        length: Interval = (0.1, 0.6),
        scale: Interval = (0.1, 1.0),
        period: Interval = (0.1, 0.5),
        noise: float = 0.02,
    ) -> None:
        for name, value in (("kernel", kernel), *(("other_kernels", other) for other in other_kernels)):
            if value not in KERNELS:
                raise ValueError(f"{name} must be {', '.join(KERNELS)}, got {value!r}")
        for name, interval in (("length", length), ("scale", scale), ("period", period)):
            if not (len(interval) == 2 and 0 < interval[0] <= interval[1]):
                raise ValueError(f"{name} must be an interval of positive numbers, got {list(interval)}")
        for name, number in (("half_width", half_width), ("noise", noise)):
            if not number > 0:
                raise ValueError(f"{name} must be above 0, got {number}")
        self.kernel: Kernel = kernel
        self.other_kernels = tuple(other_kernels)
        self.sizes = Sizes(max_points, min_context, min_target)
        self.sizes.check()
        self.half_width = half_width
        self.length, self.scale, self.period = tuple(length), tuple(scale), tuple(period)
        self.noise = noise

    def spec(self, name: str) -> DataSpec:
        shape = (self.sizes.max_points, 1)
        return DataSpec(name, shape, "function", target=DataSpec("values", shape, "real"))

    def others(self) -> Mapping[str, "GaussianProcess"]:
        return {kernel: self.of_kernel(kernel) for kernel in self.other_kernels}

    def of_kernel(self, kernel: Kernel) -> "GaussianProcess":
        """The same with another kernel."""
        own = (self.half_width, self.length, self.scale, self.period, self.noise)
        return GaussianProcess(kernel, (), *self.sizes, *own)

    def places(self, n: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        return self._uniform((-self.half_width, self.half_width), (n, self.sizes.max_points, 1), device, generator)

    def values(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shape = (len(x), 1, 1)
        length, scale, period = (
            self._uniform(interval, shape, x.device, generator) for interval in (self.length, self.scale, self.period)
        )
        noise = torch.randn(x.shape, device=x.device, generator=generator)
        # The smallest eigenvalue is that of the noise, 4e-4: float32 could lose it among hundreds of points.
        covariance = self.covariance(x.double(), length.double(), scale.double(), period.double())
        factor, failed = torch.linalg.cholesky_ex(covariance)  # without an error: its check waits for the device
        if x.device.type == "cpu" and bool(failed.any()):  # where those to evaluate on are drawn first, in any run
            raise ConfigError(f"data.task.noise={self.noise} is lost in the rounding of the covariance; raise it")
        return (factor @ noise.double()).float()

    def covariance(self, x: Tensor, length: Tensor, scale: Tensor, period: Tensor) -> Tensor:
        """That of the values at x (n, N, 1), noise included, (n, N, N), with the parameters (n, 1, 1) of each curve."""
        distance = (x - x.mT).abs()
        noise = self.noise**2 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return scale.square() * KERNELS[self.kernel](distance, length, period) + noise

    @staticmethod
    def _uniform(
        interval: Interval, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        low, high = interval
        return low + (high - low) * torch.rand(shape, device=device, generator=generator)
