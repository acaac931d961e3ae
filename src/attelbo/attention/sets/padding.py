"""Padding of sets.

Shapes: B batch, S elements, E features.
"""

from torch import Tensor

from attelbo.attention.masks import Padding


def without_padding(x: Tensor, mask: Padding | None) -> Tensor:
    """x (B, S, E) with zeros in padding: neither a weight of zero nor a gradient of zero excludes NaN."""
    return x if mask is None else x.masked_fill(~mask.valid.unsqueeze(-1), 0.0)
