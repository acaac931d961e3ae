"""Splits as they are named, read in batches and averaged over."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from attelbo.data import Batch, ResidentDataModule
from attelbo.data.batch import Evaluated, Split
from attelbo.data.loader import spread_rows

SplitName = Literal["train", "validation", "test"]
"""The name of a split on the command line."""


def evaluated(split: SplitName) -> Evaluated:
    """The split that is measured: for the training split its rows as an evaluation sees them, with nothing random."""
    return "trained" if split == "train" else split


def split_key(split: Evaluated) -> str:
    """The split's name in metric keys."""
    return {"trained": "train", "validation": "val", "test": "test"}[split]


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
