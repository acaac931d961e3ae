"""Spectral normalization: layers whose weight has no singular value above 1.

Miyato, Kataoka, Koyama & Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957,
algorithm 1. torch's own writes its estimate by ``out=``, which stacked replicas do not support.

Shapes: O outputs, I the rest of a weight.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

_SHIFT = 1e-6
"""Added in the power iteration, so that u does not vanish for weights that start at zero."""


class SpectralNorm(nn.Module):
    """W -> W / max(1, sigma(W)), sigma estimated by one power iteration in each training step.

    The paper divides by sigma itself; ours does not change a layer whose norm is below 1, since some start at zero. The
    weight of a convolution counts as the matrix (O, I k k), as in the paper; the norm of the convolution itself is
    another number, at most k times as large.

    Args:
        weight: the initial weight.
        dim: of the outputs in the weight.
    """

    u: Tensor
    """The left singular vector, (O,)."""

    def __init__(self, weight: Tensor, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim
        u = torch.randn(weight.shape[dim], dtype=weight.dtype, device=weight.device)
        self.register_buffer("u", F.normalize(u, dim=0))
        with torch.no_grad():
            for _ in range(15):
                self.u, _ = self._iterate(self._matrix(weight))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self._matrix(weight)
        with torch.no_grad():
            u, v = self._iterate(matrix)
            if self.training:
                self.u.copy_(u)
        return weight / torch.dot(u, matrix @ v).clamp(min=1)

    def _iterate(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """u and v after one iteration from the present u."""
        v = F.normalize(matrix.mT @ self.u, dim=0)
        return F.normalize(torch.add(matrix @ v, self.u, alpha=_SHIFT), dim=0), v

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)


def normalize_spectrally(module: nn.Module, but: nn.Module | None = None) -> None:
    """Put a ``SpectralNorm`` on the weight of every linear, convolutional and transposed layer inside, except ``but``;
    layers that have one keep it."""
    for layer in [layer for layer in module.modules() if layer is not but]:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not parametrize.is_parametrized(layer):
            outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach(), outputs))
