"""Autoregressive flows: each dimension is scaled and shifted by functions of those before it.

One direction takes one pass of the network, the other a pass for each dimension. Inverse autoregressive flow (Kingma et
al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow", algorithm 1) samples in one pass, masked
autoregressive flow (Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", eq. 3-6) has its
density in one.

Shapes: n samples, B batch, D dimensions, H units of the first hidden layer.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.flows.base import Flow, bounded
from attelbo.latent.flows.masked_network import MaskedNetwork


class _Autoregressive(Flow):
    """y_i = z_i exp(log_scale_i) + shift_i, where both are functions of the z before z_i; the inverse goes one
    dimension at a time."""

    def __init__(self, dim: int, hidden: Sequence[int], reverse: bool = False) -> None:
        super().__init__()
        self.network = MaskedNetwork(dim, hidden, reverse)

    @abstractmethod
    def _affine(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """shift and log_scale, each (n, B, D), for z (n, B, D)."""

    def _at_once(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """z -> y and log |det dy/dz|."""
        shift, log_scale = self._affine(z, given)
        return torch.addcmul(shift, z, log_scale.exp()), log_scale.sum(-1)

    def _one_by_one(self, y: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """y -> z and log |det dz/dy|."""
        z = log_scale = torch.zeros_like(y)
        for place in range(y.shape[-1]):
            shift, log_scale = self._affine(z, given)
            z = torch.where(self.network.position == place, (y - shift) * (-log_scale).exp(), z)
        return z, -log_scale.sum(-1)  # no scale depends on the last dimension, so the last pass has them all


class InverseAutoregressive(_Autoregressive):
    """z' = sigma z + (1 - sigma) m, with m and the gate sigma from the dimensions of z before it and the context.

    The context, ``given`` (B, H), is the encoder's part of the first hidden layer: linear in its features, computed
    once for each row. The gate starts near sigmoid(2) with m = 0, as in the paper ("+1 or +2"). Ours stays above 1/20:
    behind a gate near 0 z' has all but forgotten z, and the inverse of a rounded z' may be any number.

    Args:
        dim: D.
        hidden: units of each hidden layer; H = hidden[0].
        reverse: the order of the dimensions is D - 1 .. 0.

    Raises:
        ValueError: no hidden layer, or one without a unit.
    """

    def __init__(self, dim: int, hidden: Sequence[int], reverse: bool = False) -> None:
        super().__init__(dim, hidden, reverse)
        self.n_given = hidden[0]
        with torch.no_grad():
            self.network.output.bias[dim:].fill_(2.0)

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._at_once(z, given)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._one_by_one(z, given)

    def _affine(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        m, gate = map(full_precision, self.network(z, given))
        log_scale = bounded(F.logsigmoid(gate))
        return -log_scale.expm1() * m, log_scale


class MaskedAutoregressive(_Autoregressive):
    """From noise u to x_i = u_i exp(alpha_i) + mu_i, mu and alpha from the dimensions of x before x_i: the same for all
    rows.

    Starts as the identity. Ours bounds alpha smoothly to (-3, 3), and has no batch normalization between steps, by
    which the density of one row would depend on the others.

    Args:
        dim: D.
        hidden: units of each hidden layer.
        reverse: the order of the dimensions is D - 1 .. 0.

    Raises:
        ValueError: no hidden layer, or one without a unit.
    """

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._one_by_one(z, given)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._at_once(z, given)

    def _affine(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = map(full_precision, self.network(z))
        log_scale = -bounded(alpha)
        return -mu * log_scale.exp(), log_scale
