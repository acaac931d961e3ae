"""Rows of different lengths: nothing is lost by padding, and minibatches hold rows of similar length."""

import pytest
import torch

from attelbo.data import PAD
from attelbo.data.loader import rows_per_rank
from attelbo.data.padded import PaddedSplit, bucketed_order, pad_rows

ROWS = [[5, 6, 7], [8], [9, 300, 11, 12], [13, 14]]


def lengths(n=5000, longest=40, seed=0):
    return torch.randint(1, longest + 1, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, torch.uint8), (256, torch.int16), (32_767, torch.int16), (32_768, torch.int32)],
)
def test_rows_come_back(largest, dtype):
    rows = [*ROWS[:2], [largest, 1]]
    padded, sizes = pad_rows([[min(token, largest) for token in row] for row in rows])
    assert padded.dtype == dtype
    assert [row[:n] for row, n in zip(padded.tolist(), sizes.tolist(), strict=True)] == [
        [min(token, largest) for token in row] for row in rows
    ]
    assert (padded == PAD).sum() == padded.numel() - sizes.sum()


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_rows_without_tokens_are_refused(rows):
    with pytest.raises(ValueError, match=r"^rows must hold at least one token each$"):
        pad_rows(rows)


def test_a_batch_is_cropped_to_its_longest_row():
    split = PaddedSplit(ROWS, [row[::-1] for row in ROWS])
    batch = split.materialize(torch.tensor([3, 1]))
    assert batch.x.tolist() == [[13, 14], [8, PAD]]
    assert batch.y.tolist() == [[14, 13], [8, PAD]]
    assert batch.x.dtype == batch.y.dtype == torch.int64
    assert (split.crops(torch.device("cpu")), split.crops(torch.device("cuda"))) == (True, False)


def test_elsewhere_all_batches_have_one_shape():
    split = PaddedSplit(ROWS, torch.arange(4))
    batch = split.materialize(torch.tensor([3, 1], device="meta"))
    assert (tuple(batch.x.shape), tuple(batch.y.shape)) == ((2, 4), (2,))


def test_labels_stay_labels():
    batch = PaddedSplit(ROWS, torch.tensor([4, 5, 6, 7])).materialize(torch.tensor([2, 0]))
    assert batch.y.tolist() == [6, 4]


def test_rows_are_sorted_by_x_and_then_by_y():
    split = PaddedSplit([[1], [1, 1], [1], [1, 1]], [[1, 1, 1], [1], [1], [1, 1]])
    assert split.lengths.argsort().tolist() == [2, 0, 1, 3]


def test_rows_that_are_alike_are_neighbours():
    split = PaddedSplit([[1, 1, 1], [1], [1, 1], [1], [1, 1]], None)
    assert split.alike(torch.tensor([0, 1, 2, 4])).tolist() == [1, 2, 4, 0]


def test_checksum_is_of_tokens_and_targets():
    sums = {
        PaddedSplit(x, y).checksum()
        for x, y in [(ROWS, ROWS), (ROWS, ROWS[::-1]), (ROWS[::-1], ROWS), (ROWS, torch.arange(4))]
    }
    assert len(sums) == 4
    assert PaddedSplit(ROWS, ROWS).checksum() in sums


def test_every_row_once_and_a_function_of_seed_and_epoch():
    order = bucketed_order(lengths(), 32, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(5000))
    assert torch.equal(order, bucketed_order(lengths(), 32, seed=1, epoch=2))
    assert not torch.equal(order, bucketed_order(lengths(), 32, seed=1, epoch=3))
    assert not torch.equal(order, bucketed_order(lengths(), 32, seed=2, epoch=2))


def padding(order, sizes, batch_size):
    of_row = sizes[order].split(batch_size)
    return sum(int(part.max()) * len(part) - int(part.sum()) for part in of_row) / int(sizes.sum())


def test_minibatches_hold_little_padding():
    sizes = lengths()
    assert padding(bucketed_order(sizes, 32, 0, 0), sizes, 32) < 0.03
    assert padding(torch.arange(5000), sizes, 32) > 0.8


def test_long_minibatches_are_not_all_at_the_end():
    sizes = lengths()
    longest = torch.stack([part.max() for part in sizes[bucketed_order(sizes, 32, 0, 0)].split(32)[:-1]]).double()
    place = torch.arange(len(longest)).double()
    assert torch.corrcoef(torch.stack([longest, place]))[0, 1].abs() < 0.3


def test_neighbours_change_from_epoch_to_epoch():
    """Sorting keeps similar rows together, not the same rows."""
    sizes = lengths()
    pairs = [
        {frozenset(part) for part in bucketed_order(sizes, 2, 0, epoch).view(-1, 2).tolist()} for epoch in range(2)
    ]
    assert len(pairs[0] & pairs[1]) < 100


@pytest.mark.parametrize("world_size", [1, 2])
def test_rows_that_fill_no_minibatch_are_of_any_length(world_size):
    """Else ``drop_last`` would leave out the longest in every epoch."""
    sizes = torch.arange(1, 1001)  # 8 rows, or 40 of both ranks, fill none
    used = torch.zeros(1000, dtype=torch.bool)
    for epoch in range(4):
        for rank in range(world_size):
            order = bucketed_order(sizes, 32, 0, epoch, rank, world_size)
            used[order[: len(order) // 32 * 32]] = True
    assert used.all()


@pytest.mark.parametrize(("n", "world_size"), [(999, 2), (1000, 3), (64, 3), (5, 2), (1, 2)])
def test_ranks_share_each_minibatch(n, world_size):
    sizes, batch_size = lengths(n), 16
    orders = [bucketed_order(sizes, batch_size, 3, 1, rank, world_size) for rank in range(world_size)]
    assert {len(order) for order in orders} == {rows_per_rank(n, world_size)}
    together = torch.cat(orders)
    assert set(together.tolist()) == set(range(n))
    if n == 1000:
        means = torch.stack([sizes[order].double()[:320].view(-1, batch_size).mean(1) for order in orders])
        assert (means.amax(0) - means.amin(0)).max() < 3  # minibatches of the ranks are similarly long
