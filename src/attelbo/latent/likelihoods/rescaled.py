"""The density of rescaled data, expressed in the original units.

Where x = location + scale * u and u has the density p, that of x is p(u) / |scale|.

Shapes: n samples, B batch, (C, ...) data shape.
"""

from torch import Tensor

from attelbo.latent.likelihoods.base import Likelihood


class Rescaled(Likelihood):
    """A likelihood of u whose log-densities are those of x; means and samples are those of u.

    Args:
        likelihood: that of u.
        log_volume: log |dx / du|, nats.

    Raises:
        ValueError: it is not a density.
    """

    discrete = False

    def __init__(self, likelihood: Likelihood, log_volume: float) -> None:
        super().__init__(likelihood.data_shape)
        if likelihood.discrete:
            raise ValueError(f"{type(likelihood).__name__} is no density: scaling does not change it")
        self.likelihood = likelihood
        self.log_volume = log_volume
        self.n_parameters = likelihood.n_parameters
        self.normalized = likelihood.normalized
        self.supports = likelihood.supports

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return self.likelihood.log_prob(eta, x) - self.log_volume

    def steady_log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return self.likelihood.steady_log_prob(eta, x) - self.log_volume

    def mean(self, eta: Tensor) -> Tensor:
        return self.likelihood.mean(eta)

    def sample(self, eta: Tensor) -> Tensor:
        return self.likelihood.sample(eta)
