"""Which rows make up which minibatch, as a pure function of seed, epoch, rank and position.

An ``IndexLoader`` yields blocks of row indices, never data: the rows are gathered on the device. It holds
no state. Where to begin is asked when the first block is drawn, so that a run resumed in the middle of an
epoch goes on with exactly the blocks that it had not seen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.batch import Block, Split
from attelbo.seeding import derive_seed

Position = tuple[int, int]
"""(epoch, blocks of this epoch that are done)."""


def training_order(n_rows: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """This rank's rows in the order of this epoch: ``randperm[rank::world_size]``, int64.

    The permutation is drawn on the CPU, so it is the same on every device. If the ranks do not divide the
    rows, the permutation starts over at its end, and every rank takes equally many steps.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(n_rows, generator=generator)
    places = torch.arange(rank, rows_per_rank(n_rows, world_size) * world_size, world_size)
    return order[places % n_rows]


def cut_from_passes(rows_of: Callable[[int], Tensor], per_pass: int, first: int, n: int, batch_size: int) -> Tensor:
    """The rows of minibatches ``first`` .. ``first + n - 1`` of passes that follow each other, each without the rows at
    its end that fill no minibatch: (n * batch_size,).

    Args:
        rows_of: the rows of a pass, counted from 0.
        per_pass: minibatches in each.
        first: the first minibatch, counted over all passes.
        n: how many minibatches.
        batch_size: rows in each.
    """
    parts, turn, skipped = [], first // per_pass, first % per_pass
    while n > 0:
        rows = rows_of(turn)[skipped * batch_size : min(skipped + n, per_pass) * batch_size]
        parts.append(rows)
        n -= len(rows) // batch_size
        turn, skipped = turn + 1, 0
    return torch.cat(parts)


def spread_rows(n: int, n_rows: int, device: torch.device | None = None) -> Tensor:
    """``n`` rows spread evenly over a split, which may be sorted by class; all if there are fewer, (n,) int64."""
    n = min(n, n_rows)
    return torch.arange(n, device=device) * n_rows // n


def rows_per_rank(n_rows: int, world_size: int) -> int:
    """Rows of one rank, counting those that are used once more to make the ranks equal."""
    return -(-n_rows // world_size)


class IndexLoader:
    """Blocks of the rows that ``order`` gives for an epoch.

    Args:
        split: the split that the rows belong to.
        order: rows of this rank for an epoch, (n_rows,), on the device where the blocks are wanted.
        n_rows: how many they are, so that the length is known before an order is drawn.
        batch_size: rows in a minibatch.
        minibatches: minibatches in a block; the last block of an epoch may hold fewer.
        drop_last: leave out the rows at the end that do not fill a minibatch.
        position: where to begin, asked when the first block of an iteration is drawn.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        split: Split,
        order: Callable[[int], Tensor],
        n_rows: int,
        batch_size: int,
        minibatches: int = 1,
        drop_last: bool = False,
        position: Callable[[], Position] = lambda: (0, 0),
    ) -> None:
        check_at_least(1, batch_size=batch_size, minibatches=minibatches)
        self.split: Split = split
        self.order = order
        self.batch_size = batch_size
        self.rows_per_block = batch_size * minibatches
        self.n_rows = n_rows - n_rows % batch_size if drop_last else n_rows
        self.position = position

    def __len__(self) -> int:
        """Blocks in a whole epoch, wherever an iteration begins."""
        return -(-self.n_rows // self.rows_per_block)

    def __iter__(self) -> Iterator[Block]:
        # Being a generator, this runs at the first `next`: Lightning creates the iterator earlier, when its
        # counters of epoch and blocks do not yet say where the run goes on.
        epoch, done = self.position()
        rows = self.order(epoch)[: self.n_rows]
        for rows_of_block in rows[done * self.rows_per_block :].split(self.rows_per_block):
            if len(rows_of_block):  # splitting nothing gives one empty piece
                yield Block(rows_of_block, self.batch_size, self.split)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: present because Lightning takes a loader that has it for one that can be resumed."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load: the position is asked, not stored."""
