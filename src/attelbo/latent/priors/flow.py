"""Priors by normalizing flows from a standard normal: MAF and RealNVP. For sources see ``attelbo.latent.flows``.

Shapes: n samples, B batch, E event shape, D its number of dimensions, K flows.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI
from attelbo.latent.flows import AffineCoupling, Chain, Flow, MaskedAutoregressive
from attelbo.latent.priors.base import Prior


class FlowPrior(Prior):
    """z = center + spread * f_K(... f_1(u)), u ~ N(0, I), z flattened; starts as the standard normal.

    No closed-form KL exists.

    Args:
        latent_shape: E, the shape of one z.
        n_flows: K.
        make: each flow from its place, 0 .. K - 1.

    Raises:
        ValueError: n_flows below 1.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, latent_shape: Sequence[int], n_flows: int, make: Callable[[int], Flow]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.flow = Chain(n_flows, make)
        # A fixed affine map of the output of the flows.
        dim = math.prod(self.latent_shape)
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    @torch.no_grad()
    def start_from(self, z: Tensor) -> None:
        """Set center and spread to the mean and the std of z (n, *E)."""
        self.center.copy_(z.flatten(1).mean(0))
        self.spread.copy_(z.flatten(1).std(0, correction=0).clamp(min=1e-3))

    def log_prob(self, z: Tensor) -> Tensor:
        standardized = (z.flatten(2) - self.center) / self.spread
        u, log_det = self.flow.inverse(standardized, z.new_empty(z.shape[1], 0))
        return log_det - 0.5 * (u.square() + LOG_2PI).sum(-1) - self.spread.log().sum()

    def sample(self, n: int) -> Tensor:
        shape = (n, 1, math.prod(self.latent_shape))
        z = torch.randn(shape, dtype=self.center.dtype, device=self.center.device)
        z, _ = self.flow(z, z.new_empty(1, 0))
        return (z * self.spread + self.center).reshape(n, *self.latent_shape)


class MAF(FlowPrior):
    """Masked autoregressive flows (Papamakarios et al. 2017): a density in one pass of each network, samples in D.

    The order of the dimensions is reversed from one to the next.

    Args:
        latent_shape: E, the shape of one z.
        n_flows: K.
        hidden: units of each hidden layer of each flow.

    Raises:
        ValueError: n_flows below 1, no hidden layer, or one without a unit.
    """

    def __init__(self, latent_shape: Sequence[int], n_flows: int = 4, hidden: Sequence[int] = (128,)) -> None:
        dim = math.prod(latent_shape)
        super().__init__(latent_shape, n_flows, lambda place: MaskedAutoregressive(dim, hidden, place % 2 == 1))


class RealNVP(FlowPrior):
    """Affine couplings (Dinh et al. 2017): density and samples in one pass of each network.

    The halves take turns. Ours works on the flattened z: no checkerboards, scales or batch normalization.

    Args:
        latent_shape: E, the shape of one z.
        n_flows: K.
        hidden: units of each hidden layer of each flow.

    Raises:
        ValueError: n_flows below 1, z of one dimension, no hidden layer, or one without a unit.
    """

    def __init__(self, latent_shape: Sequence[int], n_flows: int = 6, hidden: Sequence[int] = (128,)) -> None:
        dim = math.prod(latent_shape)
        super().__init__(latent_shape, n_flows, lambda place: AffineCoupling(dim, hidden, place % 2 == 1))
