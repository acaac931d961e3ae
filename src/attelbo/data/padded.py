"""Rows of different lengths: padded, sorted so that those of a minibatch are similarly long, cropped to the longest.

Shapes: N rows, B batch, T tokens of the longest row, U of the longest target.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from attelbo.data.batch import PAD, Batch
from attelbo.data.loader import rows_per_rank, training_order
from attelbo.data.resident import ResidentSplit
from attelbo.seeding import derive_seed

POOL = 100
"""Minibatches in a pool, within which rows are sorted: as by torchtext's BucketIterator where it is told to sort within
minibatches. Where it is not, and many published models come from it so, theirs are of any length."""


class PaddedSplit(ResidentSplit):
    """Sentences, each a row, and what is to be predicted of each.

    On a CPU a batch is cropped to its longest row. On other devices all batches have the width of the whole split: a
    shape that depends on lengths would cost a synchronization, and no CUDA graph could be recorded.

    Args:
        x: N rows of tokens.
        y: N rows of tokens, which are padded too, or (N,) labels; None: nothing.

    Raises:
        ValueError: there is no row.
    """

    def __init__(self, x: Sequence[Sequence[int]], y: Sequence[Sequence[int]] | Tensor | None) -> None:
        self.x, self.x_lengths = pad_rows(x)
        if y is None or isinstance(y, Tensor):
            self.y, self.y_lengths = y, None
        else:
            self.y, self.y_lengths = pad_rows(y)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def lengths(self) -> Tensor:
        """The tokens of x, and then those of y."""
        x = self.x_lengths.cpu()
        if self.y is None or self.y_lengths is None:
            return x
        return x * (self.y.shape[1] + 1) + self.y_lengths.cpu()

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        x = _rows(self.x, self.x_lengths, index)
        if self.y is None:
            return Batch(x, None, index)
        y = self.y.index_select(0, index) if self.y_lengths is None else _rows(self.y, self.y_lengths, index)
        return Batch(x, y, index)


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows as one tensor (N, longest), padded with PAD, of the smallest integers that hold them; their lengths (N,).

    Raises:
        ValueError: there is no row, or an empty one.
    """
    if not rows or not all(rows):
        raise ValueError("rows must hold at least one token each")
    lengths = torch.tensor([len(row) for row in rows])
    flat = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64))
    places = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)  # (N, longest)
    padded = torch.full(places.shape, PAD, dtype=compact_dtype(int(flat.max()) + 1))
    return padded.masked_scatter_(places, flat.to(padded.dtype)), lengths


def compact_dtype(n_tokens: int) -> torch.dtype:
    """The smallest integers that hold 0 .. n_tokens - 1."""
    return torch.uint8 if n_tokens <= 2**8 else torch.int16 if n_tokens <= 2**15 else torch.int32


def _rows(padded: Tensor, lengths: Tensor, index: Tensor) -> Tensor:
    rows = padded.index_select(0, index)
    if index.device.type == "cpu":
        rows = rows[:, : int(lengths.index_select(0, index).max())]
    return rows.long()


def bucketed_order(
    lengths: Tensor, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> Tensor:
    """This rank's rows in the order of this epoch, with rows of similar length in each minibatch.

    A shuffle is cut into pools; each pool is sorted by length (stable, so that equal rows stay shuffled) and cut into
    minibatches, and whole minibatches are shuffled. Those that fill none come last, and are of any length. The ranks
    share each minibatch. A function of seed and epoch; each row is used once, those that make the ranks equal once
    more.

    Args:
        lengths: (N,).
        batch_size: rows of a minibatch, of each rank.
        seed: of the run.
        epoch: counted from 0.
        rank: whose rows.
        world_size: number of ranks.

    Returns:
        (rows_per_rank(N, world_size),), int64.
    """
    n = len(lengths)
    shuffled = training_order(n, seed, epoch)
    shuffled = torch.cat([shuffled, shuffled[: rows_per_rank(n, world_size) * world_size - n]])
    together = batch_size * world_size
    whole = len(shuffled) // together
    # Left over before anything is sorted: at the end of a sorted pool they would be its longest, those of a single pool
    # the same ones in every epoch, and would never be trained on where what fills no minibatch is left out.
    order, left_over = shuffled[: whole * together], shuffled[whole * together :]
    pool = torch.arange(len(order)) // (POOL * together)
    order = order[torch.argsort(pool * (int(lengths.max()) + 1) + lengths[order], stable=True)]
    generator = torch.Generator().manual_seed(derive_seed(seed, "minibatches", epoch))
    minibatches = order.view(whole, together)[torch.randperm(whole, generator=generator)]
    # Neighbours are similarly long: each rank takes every world_size-th row of a minibatch.
    return torch.cat([minibatches.flatten(), left_over])[rank::world_size]
