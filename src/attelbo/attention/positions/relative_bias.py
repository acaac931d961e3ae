"""A learned bias for each head and distance; large distances share one in buckets that grow logarithmically.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5),
section 2.1: 32 buckets, up to an offset of 128, shared by all layers. T5 has no 1 / sqrt(D) in its scores: choose the
score "dot" for that.

Shapes: N heads, T queries, S keys, K buckets.
"""

import math

import torch
from torch import Tensor, nn

from attelbo.attention.positions.base import Position


class RelativeBias(Position):
    """A learned number for the bucket of key position - query position, on the scores.

    Args:
        heads: N.
        causal: whether no key comes after its query: all buckets then serve keys before it; otherwise half of them do.
        buckets: K; half of those of a direction are for single distances.
        max_distance: the distance from which on all share the last bucket.

    Raises:
        ValueError: too few buckets for two of each kind, an odd number of them for two directions, or a max_distance
            within the range of single distances.
    """

    has_bias = True
    learns_bias = True
    bucket_of: Tensor

    def __init__(self, heads: int, causal: bool = False, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        directions = 1 if causal else 2
        if buckets < 2 * directions or buckets % (2 * directions):
            raise ValueError(f"buckets must be a multiple of {2 * directions}, got {buckets}")
        if max_distance <= buckets // directions // 2:
            raise ValueError(
                f"max_distance must be above the {buckets // directions // 2} distances with their own bucket, got "
                f"{max_distance}"
            )
        self.heads = heads
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.zeros(buckets, heads))
        offsets = torch.arange(-max_distance, max_distance + 1)
        self.register_buffer("bucket_of", relative_buckets(offsets, causal, buckets, max_distance), persistent=False)

    def bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        offset = (key - query).clamp(-self.max_distance, self.max_distance)
        return self.table[self.bucket_of[offset + self.max_distance], head]


def relative_buckets(offsets: Tensor, causal: bool, buckets: int, max_distance: int) -> Tensor:
    """The bucket of each key position - query position, both of them integers.

    Of the K' buckets of a direction (K if causal, otherwise K / 2, keys after the query in the second half), distance d
    < K' / 2 has its own; further ones are in bucket K'/2 + floor(log(d / (K'/2)) / log(max_distance / (K'/2)) K'/2), at
    most K' - 1. Keys after a query are at distance 0 if causal.
    """
    of_direction = buckets if causal else buckets // 2
    exact = of_direction // 2
    distance = (-offsets).clamp(min=0) if causal else offsets.abs()
    growth = (distance.clamp(min=1).double() / exact).log() / math.log(max_distance / exact)
    far = (exact + (growth * (of_direction - exact)).floor().long()).clamp(max=of_direction - 1)
    bucket = torch.where(distance < exact, distance, far)
    return bucket if causal else bucket + of_direction * (offsets > 0)
