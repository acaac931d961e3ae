"""Labels: the names of their classes; and few of them among many images, for semi-supervised learning: the rest are
replaced, so nothing can leak.

Shapes: N rows, Y classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

UNLABELLED = -1
"""The label of a row that has none."""


class Classes:
    """The names of classes, in the order of their numbers; none where they have none, or it is not known yet."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)

    def state(self) -> dict[str, Any]:
        """What a run directory keeps."""
        return {"names": list(self.names)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the names from what :meth:`state` returned."""
        self.names = tuple(state["names"])


def keep_labels(y: Tensor, n_labels: int, n_classes: int, generator: torch.Generator) -> Tensor:
    """y (N,) with ``n_labels`` of its labels, drawn at random, equally many of each class or, where that does not come
    out even, one more of the first classes. All others are -1.

    Raises:
        ValueError: a class has too few rows.
    """
    order = torch.randperm(len(y), generator=generator)
    shuffled = y[order]
    of_class = shuffled.bincount(minlength=n_classes)
    by_class = shuffled.argsort(stable=True)
    first = (of_class.cumsum(0) - of_class)[shuffled[by_class]]
    place = torch.empty_like(by_class)  # 0 for the first row of its class, and so on
    place[by_class] = torch.arange(len(y)) - first
    quota = n_labels // n_classes + (torch.arange(n_classes) < n_labels % n_classes).long()
    missing = (of_class < quota).nonzero().flatten().tolist()
    if missing:
        available = int(of_class[missing[0]])
        raise ValueError(
            f"n_labels={n_labels} takes {int(quota[missing[0]])} rows of class {missing[0]}, of {available}"
        )
    rows = order[place < quota[shuffled]]
    return torch.full_like(y, UNLABELLED).index_copy_(0, rows, y[rows])
