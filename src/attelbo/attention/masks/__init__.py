"""Masks: who may attend to whom."""

from attelbo.attention.masks.base import EVERYTHING, And, Mask, Or, merged
from attelbo.attention.masks.behind import Behind, Global
from attelbo.attention.masks.places import Block, BlockCausal, Causal, Full, Prefix, SlidingWindow
from attelbo.attention.masks.rows import Document, Padding

__all__ = [
    "EVERYTHING",
    "And",
    "Behind",
    "Block",
    "BlockCausal",
    "Causal",
    "Document",
    "Full",
    "Global",
    "Mask",
    "Or",
    "Padding",
    "Prefix",
    "SlidingWindow",
    "merged",
]
