"""Gradients that are not those of the value, as functions that autograd, ``torch.compile`` and vmap know."""

from typing import Any

import torch
from torch import Tensor


def weigh_samples(z: Tensor) -> tuple[Tensor, Tensor]:
    """z as it is, and zeros through which a loss says how much the gradient of each sample counts.

    A loss that adds ``(w * zeros).sum()``, w >= 0, sends back to the first z of sample k and row b its own gradient
    times w[k, b] / sum_k w[k, b]; what lies behind the returned z, such as a decoder, gets the gradient as it is.
    What multiplies the whole loss does not change the weights; a loss without the zeros has its ordinary gradient.

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
