"""Which classes a classifier mistakes for which.

Shapes: N rows, Y classes.
"""

from typing import Unpack

import torch
from torch import nn

from attelbo.checks import check_at_least
from attelbo.models import Classifier
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.maps import attention_map
from attelbo.training.media import Picture

_CHUNK = 500
"""Rows that are classified at a time."""


class Confusion(Exhibit):
    """``confusion``: for the rows of each class, the shares that the classifier assigns to each class.

    Args:
        n_rows: rows that are classified.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n_rows: int = 2000, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n_rows=n_rows)
        self.n_rows = n_rows

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, Classifier)

    def works(self, model: Classifier, data: ExhibitedData) -> dict[str, Picture]:
        batch = self.rows(data, self.n_rows, model.device)
        assert batch.y is not None
        n_classes = data.spec.n_classes or 0
        answers = torch.cat([model.classify(x).argmax(-1) for x in batch.x.split(_CHUNK)])
        counts = torch.bincount(batch.y * n_classes + answers, minlength=n_classes**2).view(n_classes, n_classes)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        classes = data.class_names or ()
        title = f"Answers to {len(answers):,} {self.split} rows of {data.spec.name}"
        return {"confusion": attention_map(shares, classes, classes, title, axes=("class", "answer"), scale="share")}
