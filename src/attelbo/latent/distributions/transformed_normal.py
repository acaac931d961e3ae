"""A diagonal normal transformed by a flow (Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", sec.
3).

Shapes: n samples, B batch, D dimensions, P parameters of the flow for each row.
"""

from typing import Self

from torch import Tensor

from attelbo.latent.control_variates import Reference
from attelbo.latent.distributions.base import Distribution
from attelbo.latent.distributions.normal import DiagonalNormal
from attelbo.latent.flows import Flow
from attelbo.latent.flows.base import Frozen


class TransformedNormal(Distribution):
    """The distribution of z = f(z_0), z_0 ~ N(m, diag(s^2)): log q(z) = log q(z_0) - log |det df/dz_0|.

    Known for every sample that it draws, not of a given z: see :class:`InvertibleNormal`.

    Args:
        base: of z_0, with means (B, D).
        flow: f.
        given: its parameters for each row, (B, P).
    """

    def __init__(self, base: DiagonalNormal, flow: Flow, given: Tensor) -> None:
        self.base = base
        self.flow = flow
        self.given = given

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, (B, D): the point that represents q, since E_q[z] has no closed form."""
        z, _ = self.flow(self.base.mean.unsqueeze(0), self.given)
        return z[0]

    def rsample(self, n: int) -> Tensor:
        z, _ = self.flow(self.base.rsample(n), self.given)
        return z

    def rsample_with_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        z, log_q = self.base.rsample_with_log_prob(n)
        z, log_det = self.flow(z, self.given)
        return z, log_q - log_det

    def rsample_for_kl(self, n: int) -> tuple[Tensor, Tensor, Reference]:
        """The reference is that of the base: it explains all noise where the flow is the identity and p = N(0, I)."""
        z, log_q, reference = self.base.rsample_for_kl(n)
        z, log_det = self.flow(z, self.given)
        return z, log_q - log_det, reference

    def log_prob(self, z: Tensor) -> Tensor:
        """Not known.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("log q(z) of a given z takes the inverse of a flow that has none in closed form")


class InvertibleNormal(TransformedNormal):
    """The same by a flow that can be inverted: log q(z) is known of any z."""

    def log_prob(self, z: Tensor) -> Tensor:
        z, log_det = self.flow.inverse(z, self.given)
        return self.base.log_prob(z) + log_det

    def stop_gradient(self) -> Self:
        return type(self)(self.base.stop_gradient(), Frozen(self.flow), self.given.detach())
