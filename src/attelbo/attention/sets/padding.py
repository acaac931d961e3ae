"""Elements of a set that are not there.

Shapes: B batch, S elements, E features.
"""

from torch import Tensor

from attelbo.attention.masks import Padding


def without_padding(x: Tensor, mask: Padding | None) -> Tensor:
    """x (B, S, E) with zeros where nothing is: a weight of zero does not keep out what is not finite, nor does a
    gradient of zero."""
    return x if mask is None else x.masked_fill(~mask.valid.unsqueeze(-1), 0.0)
