"""Rows in another order, in place: what indexing gives, for every kind of cycle."""

import itertools

import pytest
import torch

from attelbo.data import rows
from attelbo.data.rows import one_after_the_other, put_in_order


@pytest.mark.parametrize("n", range(1, 6))
def test_every_order_of_few_rows(n):
    for order in itertools.permutations(range(n)):
        x = torch.arange(2 * n, dtype=torch.uint8).view(n, 2)
        expected = x[list(order)]
        put_in_order(x, torch.tensor(order))
        assert torch.equal(x, expected)


@pytest.mark.parametrize("at_once", [1, 7 * 12, 2**20])
def test_a_slice_of_many_rows_a_few_at_a_time(monkeypatch, at_once):
    monkeypatch.setattr(rows, "_BYTES_AT_ONCE", at_once)
    whole = torch.randint(256, (300, 3, 2, 2), dtype=torch.uint8)
    order, before = torch.randperm(290), whole.clone()
    put_in_order(whole[10:], order)
    assert torch.equal(whole[10:], before[10:][order])
    assert torch.equal(whole[:10], before[:10])


def test_parts_follow_each_other():
    order = one_after_the_other([torch.tensor([5, 1]), torch.tensor([2])], 6)
    assert order.tolist() == [5, 1, 2, 0, 3, 4]
