"""What the normal, the Laplace and the hyperbolic secant likelihood share: a location for each dimension of x and one
scale for all of them.

Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders" (arXiv:2006.13202).

Shapes: n samples, B batch, (C, ...) data shape, N its number of dimensions.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from attelbo.checks import check_choice, check_positive
from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.likelihoods.base import Likelihood

Calibration = Literal["fixed", "learned", "optimal"]

MIN_SCALE = math.exp(-6)
"""The floor of the optimal scale, as in Rybkin et al.'s code: smaller than a grey level."""

MEMORY = 100
"""The number of training batches over which the running scale averages."""


class LocationScale(Likelihood):
    """p(x|z) = prod_i exp(-|x_i - eta_i|^p / (p s^p)) / (s c), unless a subclass says otherwise: eta is the location,
    without a squashing nonlinearity.

    The scale s is
      - ``fixed``: the one that is given;
      - ``learned``: one parameter, log s, that starts there;
      - ``optimal``: the maximizer of the likelihood, s^p = mean |x - eta|^p (Rybkin et al., eq. 5, for p = 2),
        in training that of the current batch. A scale fitted to the same x that it scores gives no bound on log p(x),
        so evaluation uses the running value of the training batches: a constant, and hence a true bound. Before the
        first training batch that constant is the one that is given. No gradient flows through s: for the ELBO it is
        zero anyway, at the maximum.

    This is a density: bits per dimension and NLL are not comparable with those of discrete likelihoods.

    Args:
        data_shape: (C, ...).
        calibration: how s is found: "fixed", "learned" or "optimal".
        scale: its value, or its initial value, in data units.

    Raises:
        ValueError: a scale that is not positive and finite, or an unknown calibration.
    """

    discrete = False
    supports = frozenset({"binary", "levels", "real"})
    power: ClassVar[int]
    """p."""
    log_normalizer: ClassVar[float]
    """log c, of the density with s = 1."""
    log_scale: Tensor
    _running_error: Tensor
    """s^p, as evaluation uses it, a scalar."""
    _n_batches: Tensor

    def __init__(self, data_shape: Sequence[int], calibration: Calibration = "optimal", scale: float = 1.0) -> None:
        super().__init__(data_shape)
        check_choice("calibration", calibration, Calibration)
        check_positive(scale=scale)
        self.calibration = calibration
        if calibration == "optimal":
            self.running_averages = ("_running_error",)
            self.register_buffer("_running_error", torch.tensor(float(scale**self.power)))
            self.register_buffer("_n_batches", torch.tensor(0.0))
        elif calibration == "learned":
            self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        else:
            self.register_buffer("log_scale", torch.tensor(math.log(scale)))

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        error = self._error(eta, x)
        if self.calibration == "optimal" and self.training:
            best = self._best(error.detach())
            self._remember(best)
            return self._log_density(error, self._log_optimum(best))
        return self._log_density(error, self._log_scale())

    def steady_log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return self._log_density(self._error(eta, x), self._log_scale())

    def mean(self, eta: Tensor) -> Tensor:
        return full_precision(eta)

    def sample(self, eta: Tensor) -> Tensor:
        mean = self.mean(eta)
        return torch.addcmul(mean, self._log_scale().exp(), self._noise(mean))

    def _error(self, eta: Tensor, x: Tensor) -> Tensor:
        """What the density needs of x: sum_i |x_i - eta_i|^p, (n, B)."""
        return sum_event((full_precision(eta) - x).abs().pow(self.power), 2)

    def _best(self, error: Tensor) -> Tensor:
        """s^p of the largest likelihood of a batch, a scalar."""
        return error.mean() / math.prod(self.data_shape)

    def _log_density(self, error: Tensor, log_scale: Tensor) -> Tensor:
        precision = (-self.power * log_scale).exp()
        return -error * precision / self.power - math.prod(self.data_shape) * (log_scale + self.log_normalizer)

    @abstractmethod
    def _noise(self, like: Tensor) -> Tensor:
        """Samples of location 0 and scale 1."""

    def _log_scale(self) -> Tensor:
        """The log s that does not depend on the batch, a scalar."""
        return self._log_optimum(self._running_error) if self.calibration == "optimal" else self.log_scale

    def _log_optimum(self, best: Tensor) -> Tensor:
        return best.clamp(min=MIN_SCALE**self.power).log() / self.power

    @torch.no_grad()
    def _remember(self, best: Tensor) -> None:
        # The mean of the batches at first, then an exponential average; all on the device, without a sync.
        self._n_batches.add_(1).clamp_(max=MEMORY)
        self._running_error.lerp_(best.to(self._running_error.dtype), 1 / self._n_batches)
