"""Priors by normalizing flows from a standard normal: MAF, IAF and RealNVP. For sources see ``attelbo.latent.flows``.

Shapes: n samples, B batch, E event shape, D its number of dimensions, K flows.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI
from attelbo.latent.flows import AffineCoupling, Chain, Flow, Inverse, MaskedAutoregressive
from attelbo.latent.priors.standardized import Standardized


class FlowPrior(Standardized):
    """z = center + spread * f_K(... f_1(u)), u ~ N(0, I), z flattened; starts as the standard normal.

    No closed-form KL exists.

    Args:
        latent_shape: E, the shape of one z.
        n_flows: K.
        make: each flow from its place, 0 .. K - 1.

    Raises:
        ValueError: n_flows below 1.
    """

    def __init__(self, latent_shape: Sequence[int], n_flows: int, make: Callable[[int], Flow]) -> None:
        super().__init__(latent_shape)
        self.flow = Chain(n_flows, make)

    def log_prob(self, z: Tensor) -> Tensor:
        t, log_scale = self._standardize(z)
        u, log_det = self.flow.inverse(t, z.new_empty(z.shape[1], 0))
        return log_det - 0.5 * (u.square() + LOG_2PI).sum(-1) + log_scale

    def sample(self, n: int) -> Tensor:
        u = torch.randn((n, 1, len(self.center)), dtype=self.center.dtype, device=self.center.device)
        t, _ = self.flow(u, u.new_empty(1, 0))
        return self._place(t[:, 0])


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


class IAF(FlowPrior):
    """Inverse autoregressive flows (Kingma et al. 2016): the same the other way round, samples in one pass of each
    network, a density, and so training, in D.

    Starts as the identity, with the scales of MAF in place of gates: nothing is given to it.

    Args:
        latent_shape: E, the shape of one z.
        n_flows: K.
        hidden: units of each hidden layer of each flow.

    Raises:
        ValueError: n_flows below 1, no hidden layer, or one without a unit.
    """

    def __init__(self, latent_shape: Sequence[int], n_flows: int = 4, hidden: Sequence[int] = (128,)) -> None:
        dim = math.prod(latent_shape)
        super().__init__(
            latent_shape, n_flows, lambda place: Inverse(MaskedAutoregressive(dim, hidden, place % 2 == 1))
        )


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
