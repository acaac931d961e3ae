"""How many steps a training has wherever it goes on; single rows are refused exactly where torch would stop at one."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from attelbo.errors import ConfigError
from attelbo.training import planned_steps
from attelbo.training.planning import refuse_single_rows

PASSES: dict[str, Any] = {"takes_few": True, "steps_per_epoch": None}


def test_a_training_has_as_many_steps_wherever_it_goes_on():
    trainer: Any = SimpleNamespace(world_size=1, limit_train_batches=1.0, max_steps=-1, max_epochs=5)
    data: Any = SimpleNamespace(minibatches_per_block=4, rows_per_epoch=25, batch_size=10, **PASSES)
    for steps in range(15):
        assert planned_steps(trainer, data, steps, *divmod(steps, 3)) == 15
    # Two epochs of ten smaller minibatches, and one of the third epoch in this size.
    assert planned_steps(trainer, data, 21, 2, 1) == 21 + 2 + 3 + 3


def test_epochs_of_steps_are_as_long_as_they_are_said_to_be():
    trainer: Any = SimpleNamespace(world_size=1, limit_train_batches=1.0, max_steps=-1, max_epochs=5)
    data: Any = SimpleNamespace(
        minibatches_per_block=4, rows_per_epoch=25, batch_size=10, takes_few=False, steps_per_epoch=7
    )
    assert planned_steps(trainer, data) == planned_steps(trainer, data, 17, 2, 3) == 35
    data.batch_size = 26
    with pytest.raises(ConfigError, match=r"steps_per_epoch=\d+ leaves nothing to train on: .*=26"):
        planned_steps(trainer, data)


def refused(model: nn.Module, ranks: int = 1, micro_batches: int = 1, **data: Any) -> bool:
    given: Any = SimpleNamespace(**{"takes_few": True} | data)
    try:
        refuse_single_rows(model, given, ranks, micro_batches)
    except ConfigError:
        return True
    return False


def stops(rows: int, size: int, micro_batches: int, drop_last: bool) -> bool:
    """Whether torch does, when an epoch is gone through."""
    layer = nn.BatchNorm1d(1)
    try:
        for minibatch in torch.randn(rows, 1).split(size):
            if not (drop_last and len(minibatch) < size):
                for part in minibatch.split(-(-len(minibatch) // micro_batches)):
                    layer(part)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2, 3, 4])
def test_single_rows_are_refused_where_torch_would_stop(micro_batches, drop_last):
    found = []
    for size, rows in itertools.product(range(1, 8), range(1, 23)):
        if rows < size and drop_last:
            continue  # an epoch without a minibatch, which is refused for itself
        expected = stops(rows, size, micro_batches, drop_last)
        data = {"rows_per_epoch": rows, "batch_size": size, "takes_few": not drop_last}
        assert refused(nn.BatchNorm1d(1), micro_batches=micro_batches, **data) == expected, (rows, size)
        found.append(expected)
    assert 0 < sum(found) < len(found)


def test_ranks_share_the_rows():
    assert not refused(nn.BatchNorm1d(1), rows_per_epoch=6, batch_size=2)
    assert refused(nn.BatchNorm1d(1), ranks=2, rows_per_epoch=6, batch_size=2)  # three rows each


def test_what_does_not_normalize_over_the_rows_may_have_one():
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> "Frozen":
            return super().train(False)

    one = {"rows_per_epoch": 21, "batch_size": 10}
    assert refused(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), **one)
    assert not refused(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)), **one)
    assert not refused(Frozen(nn.BatchNorm1d(1)), **one)
