"""The rows of a split that are measured, and the names of their metrics."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from attelbo.data import Batch, ResidentDataModule
from attelbo.data.batch import Evaluated, Split
from attelbo.data.loader import spread_rows
from attelbo.experiments.settings import Evaluation

SplitName = Literal["train", "validation", "test"]
"""The name of a split on the command line."""


def evaluated(split: SplitName) -> Evaluated:
    """The split that is measured: for the training split its rows as an evaluation sees them, with nothing random."""
    return "trained" if split == "train" else split


def split_key(split: Evaluated) -> str:
    """The split's name in metric keys."""
    return {"trained": "train", "validation": "val", "test": "test"}[split]


def n_evaluated(data: ResidentDataModule, split: Evaluated, settings: Evaluation) -> int:
    """The number of rows whose likelihood is measured."""
    return min(settings.n_images or data.n_rows(split), data.n_rows(split))


def rows_evaluated(
    data: ResidentDataModule, split: Evaluated, settings: Evaluation, device: torch.device
) -> Sequence[Tensor]:
    """The indices of these rows, spread evenly over the split, (<= batch_size,) each; rows of similar length are in one
    batch."""
    rows = spread_rows(n_evaluated(data, split, settings), data.n_rows(split), device)
    return data.alike(rows, split).split(settings.batch_size)


def mean_over_rows(name: str, values: Tensor) -> dict[str, float]:
    """The mean of a metric over its rows' values (B,), and its standard error, ``<name>_std_error``, which a single row
    does not have."""
    error = {f"{name}_std_error": float(values.std() / len(values) ** 0.5)} if len(values) > 1 else {}
    return {name: float(values.mean()), **error}


def batches(
    data: ResidentDataModule,
    split: Split,
    n: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[Batch]:
    """``n`` rows spread evenly over a split (all, if there are fewer), ``batch_size`` at a time."""
    for rows in spread_rows(n, data.n_rows(split), device).split(batch_size):
        yield data.materialize(rows, split)
