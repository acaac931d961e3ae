"""The data path alone: MNIST in minibatches of 100, dynamically binarized, on one CPU thread, and nothing computed.

torchvision's data set behind a DataLoader, a TensorDataset behind a DataLoader, attelbo's loader of blocks with its
gather, and the bare gather. In turns of one pass; a slow path passes over fewer rows.

Shapes: B batch, (C, H, W) image.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from attelbo.data import ImageDataModule
from attelbo.data.binarize import draw_bits
from benchmarks.contestants.networks import draw
from benchmarks.data import training_images
from benchmarks.report import spread

BATCH = 100
OURS = "attelbo"


def measure(folder: str, rounds: int, rows: int, slow_rows: int) -> dict[str, Any]:
    """Rows per second of each path, and how many times as fast as it attelbo is: over the rounds.

    Args:
        folder: with MNIST's extracted files.
        rounds: passes of each that count; one before them warms up and starts the worker processes.
        rows: in a pass.
        slow_rows: in a pass over torchvision's data set.
    """
    torch.set_num_threads(1)
    images = torch.from_numpy(training_images("mnist", Path(folder)).copy())[:rows]
    one_by_one = Subset(MNIST(folder, transform=ToTensor()), range(slow_rows))
    paths: dict[str, Iterable[Tensor]] = {
        "torchvision, DataLoader with 0 workers": _Drawn(DataLoader(one_by_one, BATCH, shuffle=True)),
        "torchvision, DataLoader with 2 workers": _Drawn(
            DataLoader(one_by_one, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        ),
        "TensorDataset, DataLoader": _Drawn(DataLoader(TensorDataset(images), BATCH, shuffle=True)),
        OURS: _Ours(folder, rows),
        "bare gather": _Bare(images),
    }
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(1 + rounds):
        for name, path in paths.items():
            start = time.perf_counter()
            n = sum(len(x) for x in path)
            rates[name].append(n / (time.perf_counter() - start))
    return {
        name: {
            "rows_per_second": spread(own[1:]),
            "ours_is_faster": spread([ours / theirs for ours, theirs in zip(rates[OURS][1:], own[1:], strict=True)]),
        }
        for name, own in rates.items()
    }


class _Drawn:
    """Batches of a DataLoader as bits, (B, 1, 28, 28)."""

    def __init__(self, loader: Iterable[list[Tensor]]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Tensor]:
        for x, *_ in self.loader:
            yield draw(x if x.is_floating_point() else x.float().div_(255))


class _Ours:
    """attelbo's blocks, minibatch by minibatch, as the stepper walks through them."""

    def __init__(self, folder: str, rows: int) -> None:
        source = {"_target_": "attelbo.data.sources.MNIST"}
        self.data = ImageDataModule(
            "mnist",
            source,
            root=folder,
            seed=0,
            batch_size=BATCH,
            eval_batch_size=1000,
            validation_size=1,
            binarize="dynamic",
            train_size=rows,
        )
        self.data.setup()

    def __iter__(self) -> Iterator[Tensor]:
        for block in self.data.train_dataloader():
            for rows in self.data.minibatches(block):
                yield self.data.materialize(rows, "train").x


class _Bare:
    """Rows of the bytes in a new order, drawn as bits."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.randperm(len(self.images)).split(BATCH):
            yield draw_bits(self.images.index_select(0, rows)).float()
