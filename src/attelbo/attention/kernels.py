"""Kernels: ways to compute softmax(scale * Q K^T) V, the scaled dot-product attention.

Source: Vaswani et al. 2017, "Attention Is All You Need", eq. 1, for each head. All kernels have one
signature and agree within rounding; they differ in speed, memory and what can be differentiated.

Shapes: B batch, N heads, T queries, S keys, D features of a head.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

KernelName = Literal["eager", "sdpa"]


class Kernel(Protocol):
    """One way to compute attention."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
        """query (B, N, T, D), key and value (B, N, S, D) -> (B, N, T, D).

        ``dropout`` is the probability with which each weight is dropped *now*: the caller passes 0 in
        evaluation, since a kernel does not know whether it is training.
        """
        ...


def attention_weights(query: Tensor, key: Tensor, *, scale: float) -> Tensor:
    """softmax over the keys of scale * Q K^T: (B, N, T, D), (B, N, S, D) -> (B, N, T, S). Rows sum to one."""
    return torch.softmax(scale * query @ key.transpose(-2, -1), dim=-1)


def eager(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """The readable reference. O(T S) memory; can be differentiated twice."""
    weights = attention_weights(query, key, scale=scale)
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    return weights @ value


def sdpa(query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float) -> Tensor:
    """PyTorch's fused kernel: O(T + S) memory, no second derivative.

    It leaves the fused path, silently, for ``dropout`` > 0 on a CPU and for inputs whose last dimension
    is not contiguous.
    """
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)


KERNELS: dict[KernelName, Kernel] = {"eager": eager, "sdpa": sdpa}
