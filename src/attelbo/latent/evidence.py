"""The evidence terms of a batch: computed by every model, read by every objective and metric.

Shapes: K importance samples, B batch, G groups of latents whose KL is known separately (the
dimensions of a factorized posterior, the layers of a hierarchy, or 1), E the event shape of z.
Units: nats; log-likelihoods are summed over the dimensions of x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from attelbo.latent.distributions import Distribution
from attelbo.latent.likelihoods.base import Likelihood
from attelbo.latent.priors.base import Density, Prior


class Generative(Protocol):
    """The generative side of a model, for objectives that need more than the terms."""

    @property
    def prior(self) -> Prior: ...
    @property
    def likelihood(self) -> Likelihood: ...
    @property
    def decoder(self) -> nn.Module: ...

    def prior_of(self, y: Tensor | None = None) -> Density:
        """p(z), or p(z|y) of labels (B,) where the prior knows them."""
        ...

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The likelihood's parameters eta (K, B, P * C, ...) for z (K, B, *E) and, where it knows them, labels (B,)."""
        ...

    def sample_prior(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws from the prior, where it knows labels (n,) that of each, as the decoder sees them, (n, *E)."""
        ...


class once:  # noqa: N801 - used as a decorator
    """A property that is computed when first asked for and then kept: ``functools.cached_property`` without its lock,
    which ``torch.compile`` cannot trace."""

    def __init__(self, compute: Callable[["Evidence"], Tensor]) -> None:
        self.compute = compute
        self.name = compute.__name__

    def __get__(self, evidence: "Evidence", owner: type | None = None) -> Tensor:
        value = self.compute(evidence)
        object.__setattr__(evidence, self.name, value)  # found before this descriptor from now on
        return value


@dataclass(frozen=True)
class Evidence:
    """What is known about log p(x) after drawing K samples from q(z|x)."""

    log_likelihood: Tensor
    """log p(x | z_k), (K, B)."""
    kl: Tensor
    """KL(q(z|x) || p(z)) by group, (B, G); exact where a closed form exists, else the K-sample mean."""
    z: Tensor
    """The samples, (K, B, *E)."""
    posterior: Distribution
    """q(z|x), one for each row of the batch."""
    log_weights: Tensor | None = None
    """log p(x, z_k) - log q(z_k|x), (K, B), where the objective asked for it."""
    sample_weights: Tensor | None = None
    """Zeros (K, B), where the objective stops the posterior: their gradients weight those of the samples on the way to
    q. See ``attelbo.latent.gradients.weigh_samples``."""
    x: Tensor | None = None
    """The data, (B, C, ...)."""
    y: Tensor | None = None
    """Its labels, (B,), for models that know them."""
    eta: Tensor | None = None
    """The likelihood's parameters for each sample, (K, B, P * C, ...); None where they depend on x too, as for texts,
    where each token is conditioned on those before it."""
    generative: Generative | None = None
    """The model itself; None, as are x and eta, where it has more than one layer of latents."""
    n_sets: int = 1
    """Rows come in so many sets of one size, one after the other: those of one set are independent draws of the data.
    Of pairs, 2: the first of each, and the second."""

    @property
    def reconstruction(self) -> Tensor:
        """-E_q[log p(x|z)] of each row, (B,), nats: lower is better."""
        return -self.log_likelihood.mean(0)

    @once
    def distortion(self) -> Tensor:
        """The mean of ``reconstruction`` over the batch, a scalar, nats: what rate-distortion theory calls so."""
        return -self.log_likelihood.mean()

    @once
    def mean_kl(self) -> Tensor:
        """The mean of ``kl`` over the batch, (G,), nats."""
        return self.kl.mean(0)

    @once
    def rate(self) -> Tensor:
        """The mean over the batch of KL(q || p), summed over groups, a scalar, nats."""
        return self.kl.sum() / len(self.kl)  # one sum: means over rows by group take as long as a product

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound E_q[log p(x|z)] - KL(q || p), (B,), nats, whatever was optimized."""
        return -self.reconstruction - self.kl.sum(-1)
