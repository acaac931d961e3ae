"""The normal likelihood, with a fixed, a learned or the optimal standard deviation.

Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders".

Shapes: n samples, B batch, (C, ...) data shape, N its number of dimensions.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from attelbo.latent.arithmetic import LOG_2PI, full_precision, sum_event
from attelbo.latent.likelihoods.base import Likelihood

MIN_STD = math.exp(-6)
"""The floor of the optimal sigma, that of the authors' code: below it lies less than a grey level."""

MEMORY = 100
"""Training batches that the running sigma remembers."""


class Normal(Likelihood):
    """p(x|z) = N(x; eta, sigma^2 I), one sigma for all dimensions: eta is the mean, without a squashing.

    sigma is
      - ``fixed``: ``std``;
      - ``learned``: one parameter, log sigma, that starts at ``std``;
      - ``optimal``: the maximizer of the likelihood, sigma^2 = mean squared error (Rybkin et al., eq. 5),
        in training that of the batch at hand. A sigma fitted to the very x it scores gives no bound on
        log p(x), so evaluation uses the running value of the training batches: a constant, and hence a
        true bound. Before the first training batch that constant is ``std``. No gradient flows through
        sigma: for the ELBO it is zero anyway, at the maximum.

    This is a density: bits per dimension and NLL are not comparable with those of discrete likelihoods.

    Args:
        data_shape: (C, ...).
        sigma: how the standard deviation is found.
        std: its value, or its initial value, in data units.

    Raises:
        ValueError: std not positive and finite, or an unknown sigma.
    """

    discrete = False
    supports = frozenset({"binary", "levels", "real"})
    log_std: Tensor
    _running_mse: Tensor
    _n_batches: Tensor

    def __init__(
        self,
        data_shape: Sequence[int],
        sigma: Literal["fixed", "learned", "optimal"] = "optimal",
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < std < math.inf:
            raise ValueError(f"std must be positive and finite, got {std}")
        if sigma not in ("fixed", "learned", "optimal"):
            raise ValueError(f"sigma must be 'fixed', 'learned' or 'optimal', got '{sigma}'")
        self.data_shape = tuple(data_shape)
        self.sigma = sigma
        if sigma == "optimal":
            self.register_buffer("_running_mse", torch.tensor(std**2))
            self.register_buffer("_n_batches", torch.tensor(0.0))
        elif sigma == "learned":
            self.log_std = nn.Parameter(torch.tensor(math.log(std)))
        else:
            self.register_buffer("log_std", torch.tensor(math.log(std)))

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        squared_error = sum_event((full_precision(eta) - x).square(), 2)  # (n, B)
        dimensions = math.prod(self.data_shape)
        if self.sigma == "optimal" and self.training:
            mse = squared_error.detach().mean() / dimensions
            self._remember(mse)
            log_std = 0.5 * mse.clamp(min=MIN_STD**2).log()
        else:
            log_std = self._log_std()
        return -0.5 * squared_error * (-2 * log_std).exp() - dimensions * (log_std + 0.5 * LOG_2PI)

    def mean(self, eta: Tensor) -> Tensor:
        return full_precision(eta)

    def sample(self, eta: Tensor) -> Tensor:
        mean = self.mean(eta)
        return torch.addcmul(mean, self._log_std().exp(), torch.randn_like(mean))

    def _log_std(self) -> Tensor:
        """The log sigma that does not depend on the batch, a scalar."""
        return 0.5 * self._running_mse.clamp(min=MIN_STD**2).log() if self.sigma == "optimal" else self.log_std

    @torch.no_grad()
    def _remember(self, mse: Tensor) -> None:
        # The mean of the batches at first, then an exponential average; all on the device, without a sync.
        self._n_batches.add_(1).clamp_(max=MEMORY)
        self._running_mse.lerp_(mse.to(self._running_mse.dtype), 1 / self._n_batches)
