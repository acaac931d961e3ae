"""Gradients that differ from those of the value, as functions that support autograd, ``torch.compile`` and vmap."""

from typing import Any

import torch
from torch import Tensor


def weigh_samples(z: Tensor) -> tuple[Tensor, Tensor]:
    """z unchanged, and zeros through which a loss sets the weight of each sample's gradient.

    A loss that adds ``(w * zeros).sum()``, w >= 0, multiplies the gradient that reaches the input z of sample k and row
    b by w[k, b] / sum_k w[k, b]; what is computed from the returned z, such as a decoder, gets its ordinary gradient. A
    factor of the whole loss does not change the weights; a loss without the zeros has its ordinary gradient.

    Args:
        z: samples, (K, B, *E).

    Returns:
        z, (K, B, *E), and the zeros, (K, B).
    """
    return _WeighSamples.apply(z)


class _WeighSamples(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> tuple[Tensor, Tensor]:
        return z.view_as(z), z.new_zeros(z.shape[:2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_z, weights = grads
        total = weights.sum(0)
        share = torch.where(total == 0, 1.0, weights / total)
        return grad_z * share.reshape(share.shape + (1,) * (grad_z.dim() - 2))
