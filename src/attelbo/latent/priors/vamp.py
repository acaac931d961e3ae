"""The variational mixture of posteriors (Tomczak & Welling 2018, "VAE with a VampPrior", arXiv:1705.07120, eq. 9).

Shapes: n samples, B batch, E event shape, D its number of dimensions, M pseudo-inputs, (C, ...) data shape.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.distributions import Distribution
from attelbo.latent.priors.base import Prior
from attelbo.latent.spaces import Ball, Positive, Real, Sphere


class VampPrior(Prior):
    """p(z) = 1/M sum_m q(z|u_m): the posteriors of M learned pseudo-inputs u_m, equally likely.

    The best prior for the ELBO is the aggregated posterior of the training data (eq. 7); this is that of M artificial
    data points. The pseudo-inputs are sigmoids of free parameters, data in (0, 1), and start as noise around mid-grey;
    the authors' code clips them to [0, 1], where values outside get no gradient. Those of real numbers are the
    parameters themselves, and start as N(0, 1), as standardized data are.

    No closed-form KL exists; the K-sample estimate is used. Each call of ``log_prob`` encodes the M pseudo-inputs, and
    so does ``density``, for all calls of what it returns; memory grows with n B M, and with n B M D unless q(z|x) is a
    diagonal normal.

    Args:
        latent_shape: E, the shape of one z.
        data_shape: (C, ...), the shape of one pseudo-input.
        n_components: M; 500 in the paper.
        data_kind: of the data, "real" or another.

    Raises:
        ValueError: n_components below 1.
    """

    spaces = (Real, Positive, Sphere, Ball)
    made_of_posteriors = True

    def __init__(
        self,
        latent_shape: Sequence[int],
        data_shape: Sequence[int],
        n_components: int = 100,
        data_kind: str = "levels",
    ) -> None:
        super().__init__()
        check_at_least(1, n_components=n_components)
        self.latent_shape = tuple(latent_shape)
        self.n_components = n_components
        self.data_kind = data_kind
        self.logits = nn.Parameter(torch.randn(n_components, *data_shape))
        self._posterior_of: Callable[[Tensor], Distribution] | None = None

    def attach(self, posterior_of: Callable[[Tensor], Distribution]) -> None:
        self._posterior_of = posterior_of

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (M, C, ...), in data units."""
        return self.logits if self.data_kind == "real" else self.logits.sigmoid()

    def log_prob(self, z: Tensor) -> Tensor:
        return self.density()(z)

    def density(self) -> Callable[[Tensor], Tensor]:
        components = self._infer(self.pseudo_inputs)

        def log_prob(z: Tensor) -> Tensor:
            log_components = components.cross_log_prob(z.flatten(0, 1))  # (n B, M)
            return (log_components.logsumexp(-1) - math.log(self.n_components)).unflatten(0, z.shape[:2])

        return log_prob

    def sample(self, n: int) -> Tensor:
        component = torch.randint(self.n_components, (n,), device=self.logits.device)
        return self._infer(self.pseudo_inputs[component]).rsample(1)[0]

    def _infer(self, u: Tensor) -> Distribution:
        assert self._posterior_of is not None, "the model attaches its q(z|x) to the prior"
        return self._posterior_of(u)
