"""Attention mechanisms in pure torch: usable without Lightning and Hydra."""

from attelbo.attention.feature_map import SelfAttention2d
from attelbo.attention.kernels import KERNELS, Kernel, KernelName, attention_weights, eager, sdpa
from attelbo.attention.multi_head import MultiHeadAttention

__all__ = [
    "KERNELS",
    "Kernel",
    "KernelName",
    "MultiHeadAttention",
    "SelfAttention2d",
    "attention_weights",
    "eager",
    "sdpa",
]
