"""Generated sets: answers by plain Python and by torch's distributions, sizes, and which rows come again."""

import pytest
import torch
from torch import distributions as D

from attelbo.data.tasks import Mixtures, SetDataModule

CPU = torch.device("cpu")


def module(task: str = "MaxOfSet", seed: int = 0, **options: object) -> SetDataModule:
    return SetDataModule(
        "sets",
        {"_target_": f"attelbo.data.tasks.{task}", **options},
        root="nowhere",
        seed=seed,
        batch_size=10,
        eval_batch_size=25,
        train_size=200,
        validation_size=300,
        test_size=60,
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_maximum_of_each_set(split):
    data = module()
    batch = data.materialize(torch.arange(data.n_rows(split)), split)
    assert batch.x.shape[1:] == data.spec.shape == (10, 1)
    assert batch.segments is not None
    assert batch.y is not None
    assert batch.x.dtype == batch.y.dtype == torch.float32
    sizes = set()
    for x, y, segments in zip(batch.x[..., 0].tolist(), batch.y.tolist(), batch.segments.tolist(), strict=True):
        there = [number for number, segment in zip(x, segments, strict=True) if segment == 0]
        assert max(there) == y
        assert all(number in range(1, 100) for number in there)
        assert segments == [0] * len(there) + [-1] * (10 - len(there))
        assert set(x[len(there) :]) <= {0.0}
        sizes.add(len(there))
    assert sizes == set(range(1, 11))


def test_mixtures_are_what_they_say():
    task = Mixtures(smallest_set=3, largest_set=20)
    x, size, y = task.draw(400, CPU, torch.Generator().manual_seed(0))
    assert int(size.min()) == 3
    assert int(size.max()) == 20
    # The parameters again, from the same stream: weights and means come after the sizes.
    generator = torch.Generator().manual_seed(0)
    torch.randint(3, 21, (400,), generator=generator)
    weights = -torch.log1p(-torch.rand(400, 4, generator=generator))
    means = 4 * (2 * torch.rand(400, 4, 2, generator=generator) - 1)
    for row in range(400):
        mixture = D.MixtureSameFamily(
            D.Categorical(weights[row]), D.Independent(D.Normal(means[row], torch.full((4, 2), 0.3)), 1)
        )
        points = x[row, : size[row]]
        torch.testing.assert_close(mixture.log_prob(points).mean(), y[row], atol=1e-4, rtol=1e-4)
        assert (x[row, size[row] :] == 0).all()


def test_points_are_drawn_by_the_weights():
    """The density at the true parameters is, on average, minus the entropy: an estimate of which from other points of
    the same mixtures agrees."""
    task = Mixtures()
    _, _, y = task.draw(400, CPU, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    weights = D.Dirichlet(torch.ones(4)).sample((400,))
    means = 8 * torch.rand(400, 4, 2, generator=generator) - 4
    mixture = D.MixtureSameFamily(D.Categorical(weights), D.Independent(D.Normal(means, torch.full((2,), 0.3)), 1))
    other = mixture.log_prob(mixture.sample((450,))).mean(0)
    error = (y.var() / 400 + other.var() / 400).sqrt()
    assert (y.mean() - other.mean()).abs() < 4 * error


def test_training_sets_are_new_each_time_and_the_others_are_not():
    data, rows = module(), torch.arange(5)
    torch.manual_seed(0)
    first, second = data.materialize(rows, "train"), data.materialize(rows, "train")
    assert not torch.equal(first.x, second.x)
    torch.manual_seed(0)
    assert torch.equal(data.materialize(rows, "train").x, first.x)
    kept = data.materialize(rows, "test")
    assert torch.equal(data.materialize(rows, "test").x, kept.x)
    assert torch.equal(module(seed=1).materialize(rows, "test").x, kept.x)
    assert not torch.equal(data.materialize(rows, "validation").x, kept.x)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("MaxOfSet", {"largest_set": 0}, "largest_set must be at least 1, got 0"),
        ("MaxOfSet", {"largest": 0}, "largest must be at least 1, got 0"),
        ("Mixtures", {"smallest_set": 5, "largest_set": 4}, "largest_set must be at least 5, got 4"),
        ("Mixtures", {"std": 0.0}, "spread and std must be above 0, got 4.0 and 0.0"),
    ],
)
def test_bad_numbers_are_refused(task, options, message):
    with pytest.raises(ValueError, match=message):
        module(task, **options)
