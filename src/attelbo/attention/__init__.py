"""Attention mechanisms in pure torch: usable without Lightning and Hydra.

score(q, k) + position's bias -- soft cap --> normalizer, mask -- kernel --> output
"""

from attelbo.attention.blocks import BlockCache, FeedForward, TransformerBlock, norm_layer
from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.feature_map import SelfAttention2d
from attelbo.attention.kernels import KERNELS, Kernel, KernelName, Mechanism, attention_weights
from attelbo.attention.linear import EluFeatures, LinearAttention, LinearCache, PositiveRandomFeatures
from attelbo.attention.masks import And, Block, Causal, Document, Full, Mask, Or, Padding, Prefix, SlidingWindow
from attelbo.attention.multi_head import MultiHeadAttention
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.positions import (
    Alibi,
    AxialRotary,
    Learned,
    NoPosition,
    Position,
    RelativeBias,
    Rotary,
    Sinusoidal,
    Sinusoidal2d,
)
from attelbo.attention.scores import Dot, ScaledDot, Score

__all__ = [
    "KERNELS",
    "Alibi",
    "And",
    "AxialRotary",
    "Block",
    "BlockCache",
    "Causal",
    "Document",
    "Dot",
    "EluFeatures",
    "FeedForward",
    "Full",
    "Kernel",
    "KernelName",
    "KeyValueCache",
    "KeyValues",
    "Learned",
    "LinearAttention",
    "LinearCache",
    "Mask",
    "Mechanism",
    "MultiHeadAttention",
    "NoPosition",
    "Normalizer",
    "Or",
    "Padding",
    "Position",
    "PositiveRandomFeatures",
    "Prefix",
    "RelativeBias",
    "Rotary",
    "ScaledDot",
    "Score",
    "SelfAttention2d",
    "Sinusoidal",
    "Sinusoidal2d",
    "SlidingWindow",
    "Softmax",
    "TransformerBlock",
    "attention_weights",
    "norm_layer",
]
