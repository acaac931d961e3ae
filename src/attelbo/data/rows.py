"""The rows of a large tensor, put into another order where they lie: the data set is never in memory twice.

Any order is reached in two passes of exchanges, each of pairs that have no row in common, many of which are exchanged
at a time: a cycle of rows that take each other's places is turned by reflecting it twice.

Shapes: N rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_BYTES_AT_ONCE = 2**25


def one_after_the_other(parts: Sequence[Tensor], n: int) -> Tensor:
    """The order of n rows, (n,) int64, in which those of each part (n_part,) follow those of the one before, and those
    of none come last. No row is in two parts."""
    used = torch.zeros(n, dtype=torch.bool).index_fill_(0, torch.cat([*parts]), True)
    return torch.cat([*parts, (~used).nonzero().squeeze(1)])


def put_in_order(x: Tensor, order: Tensor) -> None:
    """Replace x (N, ...), on the CPU and contiguous, by ``x[order]``.

    Args:
        x: the rows.
        order: a permutation of them, (N,).
    """
    rows = x.numpy()
    at_once = max(1, _BYTES_AT_ONCE // max(1, x[:1].nbytes))
    for pairs in _passes(order.tolist()):
        for some in pairs.split(at_once, 1):
            one, other = some.numpy()
            kept = rows[one]
            rows[one] = rows[other]
            rows[other] = kept


def _passes(order: list[int]) -> tuple[Tensor, Tensor]:
    """The pairs of the first pass and of the second, (2, n) each: with c[i + 1] = order[c[i]] around a cycle of length
    k, row c[i] is exchanged with c[-i], then c[i] with c[k - 1 - i]."""
    first, second = ([], []), ([], [])
    placed = bytearray(len(order))
    for start in range(len(order)):
        cycle, row = [], start
        while not placed[row]:
            placed[row] = 1
            cycle.append(row)
            row = order[row]
        k = len(cycle)
        if k > 1:
            backwards = cycle[::-1]
            first[0].extend(cycle[1 : (k + 1) // 2])
            first[1].extend(backwards[: (k - 1) // 2])
            second[0].extend(cycle[: k // 2])
            second[1].extend(backwards[: k // 2])
    return torch.tensor(first, dtype=torch.int64), torch.tensor(second, dtype=torch.int64)
