"""Numbers written as CSV: samples and reconstructions of models of vectors, in the units of the data's file.

Shapes: n rows (n, D).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.experiments.trained import Trained, print_written
from attelbo.files import csv_text, write_atomically


def numbers_as_csv(head: Sequence[str], index: Sequence[Sequence[int]], numbers: Tensor) -> str:
    """A line of column names, then for each row its integers ``index`` (n, I) and its ``numbers`` (n, D)."""
    rows = zip(index, numbers.tolist(), strict=True)
    return csv_text([head, *([*own, *(f"{number:.7g}" for number in others)] for own, others in rows)])


def write_vectors(trained: Trained, samples: Tensor, output: str | None, name: str) -> None:
    """Samples (n, D), a row each; columns are called as in the table of the data, if it is one."""
    numbers = trained.data.restored(samples)
    head = _columns(trained, numbers.shape[1]) or [f"x{i}" for i in range(1, numbers.shape[1] + 1)]
    path = trained.path(output, name)
    print_written(f"{len(numbers)} samples", write_atomically(path, numbers_as_csv(head, [()] * len(numbers), numbers)))


def _columns(trained: Trained, n: int) -> list[str]:
    """The names of the columns of a table, if the data are one."""
    names = getattr(getattr(trained.data, "source", None), "columns", ())
    return list(names) if len(names) == n else []


def write_pairs(
    trained: Trained, index: Tensor, x: Tensor, reconstructions: Tensor, output: str | None, name: str
) -> None:
    """The rows ``index`` (n,) of a split, x1 ... xD, and behind them their reconstructions, r1 ... rD."""
    numbers = trained.data.restored(torch.cat([x, reconstructions.to(x)], 1).unflatten(1, (2, -1))).flatten(1)
    head = ["row", *(f"{side}{i}" for side in "xr" for i in range(1, x.shape[1] + 1))]
    path = trained.path(output, name)
    table = numbers_as_csv(head, index.unsqueeze(1).tolist(), numbers)
    print_written(f"{len(x)} rows with their reconstructions", write_atomically(path, table))
