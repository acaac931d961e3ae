"""Agreement of segmentations.

Shapes: B batch, S elements of an image, such as its pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def adjusted_rand_index(found: Tensor, true: Tensor) -> Tensor:
    """The Rand index of each image, corrected for chance: 1 for the same partition whatever its labels, 0 in
    expectation for a random one with clusters of the same sizes.

    Hubert & Arabie 1985, "Comparing Partitions", equation 5. Elements without a true cluster do not count: with the
    background left out this is the foreground ARI, which papers average over images (Locatello et al. 2020, section
    4.1).

    Args:
        found: predicted clusters of the elements, (B, S), integers from 0 on.
        true: true clusters, (B, S), integers, -1 for elements that do not count.

    Returns:
        (B,), float64, at most 1; NaN where nothing counts.
    """
    counts = true >= 0
    rows = F.one_hot(true.long().clamp_min(0)) * counts.unsqueeze(-1)  # (B, S, clusters)
    table = rows.mT.double() @ F.one_hot(found.long()).double()  # (B, true, found)
    together = _pairs(table).sum((1, 2))
    in_true, in_found = _pairs(table.sum(2)).sum(1), _pairs(table.sum(1)).sum(1)
    n = counts.sum(1).double()
    expected = in_true * in_found / _pairs(n).clamp_min(1)
    spread = (in_true + in_found) / 2 - expected
    # All in one cluster, or each in its own, in both: the same partition.
    index = torch.where(spread == 0, 1.0, (together - expected) / torch.where(spread == 0, 1.0, spread))
    return index.masked_fill(n == 0, torch.nan)


def _pairs(n: Tensor) -> Tensor:
    return n * (n - 1) / 2
