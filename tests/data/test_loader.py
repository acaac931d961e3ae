"""The order of rows: a function of seed and epoch, shared out among the ranks, resumed at any block."""

from itertools import chain

import pytest
import torch

from attelbo.data.loader import IndexLoader, rows_per_rank, spread_rows, training_order


def loader(epoch=0, done=0, n_rows=103, batch_size=10, minibatches=3, drop_last=False, seed=5):
    return IndexLoader(
        "train",
        order=lambda e: training_order(n_rows, seed, e),
        n_rows=n_rows,
        batch_size=batch_size,
        minibatches=minibatches,
        drop_last=drop_last,
        position=lambda: (epoch, done),
    )


def rows(blocks):
    return [block.index.tolist() for block in blocks]


def flat(lists):
    return list(chain.from_iterable(lists))


def test_order_is_a_function_of_seed_and_epoch():
    assert rows(loader(epoch=2)) == rows(loader(epoch=2))
    assert rows(loader(epoch=2)) != rows(loader(epoch=3))
    assert rows(loader(seed=5)) != rows(loader(seed=6))


def test_order_does_not_touch_or_depend_on_the_default_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = rows(loader())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert rows(loader()) == first


def test_order_is_pinned():
    """A change of these numbers means that no run of an earlier version can be repeated."""
    assert training_order(10, seed=0, epoch=0).tolist() == [7, 2, 3, 0, 5, 4, 1, 8, 6, 9]


def test_some_rows_of_a_split_sorted_by_class_are_of_all_classes():
    classes = torch.arange(10).repeat_interleave(37)
    assert classes[spread_rows(50, len(classes))].bincount().tolist() == 10 * [5]
    assert spread_rows(4, 10).tolist() == [0, 2, 5, 7]
    assert spread_rows(12, 10).tolist() == list(range(10))


def test_every_row_exactly_once_in_an_epoch():
    blocks = rows(loader(epoch=1))
    assert [len(block) for block in blocks] == [30, 30, 30, 13]
    assert len(blocks) == len(loader())
    assert sorted(flat(blocks)) == list(range(103))


def test_drop_last_leaves_only_whole_minibatches():
    blocks = rows(loader(drop_last=True))
    assert [len(block) for block in blocks] == [30, 30, 30, 10]
    assert flat(blocks) == flat(rows(loader()))[:100]
    assert len(loader(drop_last=True, n_rows=90)) == 3
    assert len(loader(drop_last=True, n_rows=9)) == len(rows(loader(drop_last=True, n_rows=9))) == 0


@pytest.mark.parametrize("done", range(5))
def test_resuming_gives_the_tail_of_the_order(done):
    assert rows(loader(epoch=4, done=done)) == rows(loader(epoch=4))[done:]


@pytest.mark.parametrize("steps", [1, 3, 10, 17, 25])
def test_epochs_of_steps_are_cut_from_passes(digits, steps):
    """One pass after the other, each without the rows at its end that fill no minibatch, whatever an epoch's length."""
    data = digits(train_size=103, batch_size=10)
    passes = [rows for turn in range(9) for rows in data.training_rows(turn, 0, 1)[:100].split(10)]
    data.steps_per_epoch = steps
    loader = data.train_dataloader()
    assert len(loader) == -(-steps // 16)
    found = []
    for epoch in range(80 // steps):
        loader.position = lambda epoch=epoch: (epoch, 0)
        found += [minibatch for block in loader for minibatch in data.minibatches(block)]
        assert len(found) == steps * (epoch + 1)
    assert flat([minibatch.tolist() for minibatch in found]) == flat([rows.tolist() for rows in passes[: len(found)]])


@pytest.mark.parametrize("steps", [3, 10, 17])
def test_the_ranks_share_the_minibatches_of_such_an_epoch(digits, steps, monkeypatch):
    """Two of 5 rows see together what one of 10 sees; of 103 rows one is used once more, which is in no whole one."""

    def minibatches(size: int, rank: int, world_size: int) -> list[torch.Tensor]:
        data = digits(train_size=103, batch_size=size)
        data.steps_per_epoch = steps
        monkeypatch.setattr(data, "_place", lambda: (rank, world_size, torch.device("cpu")))
        loader = data.train_dataloader()
        loader.position = lambda: (1, 0)
        return [rows for block in loader for rows in data.minibatches(block)]

    of_ranks = [minibatches(5, rank, 2) for rank in range(2)]
    alone = minibatches(10, 0, 1)
    assert len(alone) == steps
    for rows, *parts in zip(alone, *of_ranks, strict=True):
        assert torch.equal(rows, torch.stack(parts, 1).flatten())


def test_position_is_asked_at_the_first_block_and_for_every_iteration():
    position = (0, 0)
    resumable = IndexLoader("train", lambda e: training_order(20, 0, e), 20, batch_size=5, position=lambda: position)
    iterator = iter(resumable)
    position = (7, 3)  # as Lightning does: the iterator is created before the counters are restored
    assert [block.tolist() for block, *_ in iterator] == [training_order(20, 0, 7)[15:].tolist()]
    position = (8, 0)
    assert flat(rows(resumable)) == training_order(20, 0, 8).tolist()


@pytest.mark.parametrize(("n_rows", "world_size"), [(12, 3), (13, 3), (14, 3), (1, 2), (2, 5), (100, 7)])
def test_ranks_share_everything_in_equal_numbers(n_rows, world_size):
    orders = [training_order(n_rows, 3, 1, rank, world_size) for rank in range(world_size)]
    assert {len(order) for order in orders} == {rows_per_rank(n_rows, world_size)}
    together = torch.stack(orders, 1).flatten()  # rank r took every world_size-th row from r on
    assert torch.equal(together[:n_rows], training_order(n_rows, 3, 1))
    assert torch.equal(together[n_rows:], together[: len(together) - n_rows])


def test_minibatches_and_split_travel_with_a_block():
    block = next(iter(loader()))
    assert (block.batch_size, block.split) == (10, "train")


@pytest.mark.parametrize("name", ["batch_size", "minibatches"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0"):
        loader(**{name: 0})
