"""Linear attention: scores are inner products of features, so that time and memory are linear in the length.

An operation of its own, not a kernel for softmax attention. Pure torch.
"""

from attelbo.attention.linear.features import EluFeatures, FeatureMap, PositiveRandomFeatures
from attelbo.attention.linear.module import LinearAttention, LinearCache
from attelbo.attention.linear.operation import causal_linear_attention, linear_attention

__all__ = [
    "EluFeatures",
    "FeatureMap",
    "LinearAttention",
    "LinearCache",
    "PositiveRandomFeatures",
    "causal_linear_attention",
    "linear_attention",
]
