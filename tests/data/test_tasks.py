"""Generated tasks: answers by a solver in plain Python, no question in two splits, the same rows in every run."""

import pytest
import torch

from attelbo.data.batch import IGNORE
from attelbo.data.tasks import AssociativeRecall, Copy, TaskDataModule
from attelbo.data.tasks.associative_recall import distinct, others
from attelbo.data.tasks.base import eighth
from attelbo.errors import ConfigError

CLASSES = {"associative_recall": "AssociativeRecall", "copy": "Copy", "reverse": "Reverse", "sort": "Sort"}


def module(name: str, sizes: tuple[int, int, int] = (200, 50, 60), seed: int = 0, **task: object) -> TaskDataModule:
    return TaskDataModule(
        name,
        {"_target_": f"attelbo.data.tasks.{CLASSES[name]}", **task},
        root="nowhere",
        seed=seed,
        batch_size=10,
        eval_batch_size=25,
        train_size=sizes[0],
        validation_size=sizes[1],
        test_size=sizes[2],
    )


def rows(data: TaskDataModule, split) -> list[tuple[list[int], list[int]]]:
    batch = data.materialize(torch.arange(data.n_rows(split)), split)
    assert batch.y is not None
    assert batch.x.dtype == batch.y.dtype == torch.int64
    assert batch.x.shape[1:] == data.spec.shape
    return list(zip(batch.x.tolist(), batch.y.tolist(), strict=True))


def sorted_row(x: list[int], length: int) -> list[int]:
    question = x[:length]
    assert x[length:] == sorted(question)[:-1]
    return [IGNORE] * (length - 1) + sorted(question)


def copied_row(x: list[int], length: int, marker: int) -> list[int]:
    """What was said before, once the marker has come."""
    return [IGNORE] * (x.index(marker) + 1) + x[:length]


def recalled_row(x: list[int], n_pairs: int) -> list[int]:
    """The value that followed a key at its one earlier place; a token that is no key of the row asks for nothing."""
    values = dict(zip(x[: 2 * n_pairs : 2], x[1 : 2 * n_pairs : 2], strict=True))
    assert len(values) == n_pairs
    return [IGNORE] * (2 * n_pairs) + [values.get(token, IGNORE) for token in x[2 * n_pairs :]]


SOLVERS = {
    "associative_recall": lambda x: recalled_row(x, 4),
    "copy": lambda x: copied_row(x, 10, marker=9),
    "reverse": lambda x: x[::-1],
    "sort": lambda x: sorted_row(x, 6),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_task_says_whether_its_answers_are_the_next_tokens_of_the_row(name):
    data = module(name)
    asked = [(x[t + 1], y[t]) for x, y in rows(data, "train") for t in range(len(x) - 1) if y[t] != IGNORE]
    assert data.spec.next_tokens == all(following == answer for following, answer in asked)


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_are_right(name):
    data = module(name)
    for split in ("train", "validation", "test"):
        for x, y in rows(data, split):
            assert y == SOLVERS[name](x)
            assert sum(token != IGNORE for token in y) == data.spec.answer_length
            assert data.spec.n_tokens is not None
            assert 0 <= min(x) <= max(*x, *y) < data.spec.n_tokens


@pytest.mark.parametrize("name", SOLVERS)
def test_no_question_is_in_two_splits(name):
    data = module(name, (3000, 500, 500))
    train, validation, test = ({tuple(x) for x, _ in rows(data, split)} for split in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_all_six_digits_of_three_kinds_are_in_a_split():
    data = module("sort", (20_000, 4000, 4000))
    found = {tuple(x) for split in ("train", "validation", "test") for x, _ in rows(data, split)}
    assert len(found) == 3**6


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_are_the_same_for_every_seed_and_their_order_is_not(name):
    """Whatever has been drawn before."""
    one, other = module(name), module(name, seed=1)
    for seed, data in enumerate((one, other)):
        torch.manual_seed(seed)
        data.setup()
    assert one.checksums() == other.checksums()
    assert len(set(one.checksums().values())) == 3
    assert not torch.equal(one.training_rows(0, 0, 1), other.training_rows(0, 0, 1))


def test_eighths_are_of_equal_size():
    x = torch.randint(10, (80_000, 5), generator=torch.Generator().manual_seed(1))
    counts = torch.bincount(eighth(x.unique(dim=0)), minlength=8).float()
    expected = counts.sum() / 8
    assert ((counts - expected).square() / expected).sum() < 24.3  # chi-square of 7 degrees of freedom, p = 0.001


def test_too_few_questions_is_one_line():
    with pytest.raises(ConfigError, match=r"too few different questions for 50 validation rows of sort"):
        module("sort", length=1, n_digits=2).setup()


@pytest.mark.parametrize(("length", "n_pairs", "n_tokens"), [(8, 2, 6), (16, 4, 10), (128, 8, 8192), (256, 64, 300)])
@pytest.mark.parametrize("noise", [False, True])
def test_every_recall_has_one_answer(length, n_pairs, n_tokens, noise):
    """Also where the vocabulary is so small that tokens between queries would often be keys of the row."""
    task = AssociativeRecall(length, n_pairs, n_tokens, noise=noise)
    x, y = task.draw(300, torch.Generator().manual_seed(0))
    for row, answer in zip(x.tolist(), y.tolist(), strict=True):
        assert answer == recalled_row(row, n_pairs)
        assert sum(token != IGNORE for token in answer) == n_pairs
        assert max(row[: 2 * n_pairs : 2]) < n_tokens // 2 <= min(row[1 : 2 * n_pairs : 2])
        assert 0 <= min(row) <= max(row) < n_tokens
    between = x[:, 2 * n_pairs :][y[:, 2 * n_pairs :] == IGNORE]
    assert bool(between.any()) == noise


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((counts - expected).square() / expected).sum())


def test_different_numbers_are_drawn_uniformly():
    picks = distinct(60_000, 2, 4, torch.Generator().manual_seed(0))
    pairs = (4 * picks[:, 0] + picks[:, 1]).bincount(minlength=16).double()
    assert pairs[[0, 5, 10, 15]].sum() == 0
    assert chi_square(pairs[pairs > 0], torch.full((12,), 5000.0)) < 31.3  # 11 degrees of freedom, p = 0.001


def test_other_numbers_are_drawn_uniformly():
    excluded = torch.tensor([[5, 0, 3]]).expand(20_000, 3)
    drawn = others(excluded, 8, 4, torch.Generator().manual_seed(0)).flatten().bincount(minlength=8).double()
    assert drawn[[0, 3, 5]].sum() == 0
    assert chi_square(drawn[[1, 2, 4, 6, 7]], torch.full((5,), 16_000.0)) < 18.5  # 4 degrees of freedom, p = 0.001


def test_most_recalls_come_soon():
    """The first query's place follows the power law itself: what is drawn after it is drawn from what is left."""
    task = AssociativeRecall(length=24, n_pairs=2, n_tokens=64, power=0.5)
    x, _ = task.draw(40_000, torch.Generator().manual_seed(0))
    places = (x[:, 4:] == x[:, :1]).long().argmax(1)
    assert (places % 2 == 0).all()
    weights = torch.arange(1, 11).double() ** (0.5 - 1)
    counts = (places // 2).bincount(minlength=10).double()
    assert chi_square(counts, 40_000 * weights / weights.sum()) < 27.9  # 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 15}, "length must be at least 16, got 15"),
        ({"length": 65}, "length must be even, got 65"),
        ({"n_tokens": 8}, "n_tokens must be at least 10, got 8"),
        ({"n_tokens": 8191}, "n_tokens must be even, got 8191"),
        ({"n_pairs": 0}, "n_pairs must be at least 1, got 0"),
        ({"power": 0.0}, r"power must be positive, got 0\.0"),
    ],
)
def test_recalls_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        AssociativeRecall(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"delay": 0}, "delay must be at least 1, got 0"), ({"n_symbols": 1}, "n_symbols must be at least 2, got 1")],
)
def test_copies_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Copy(**options)


def test_a_copy_without_delay():
    x, y = Copy(length=2, delay=1, n_symbols=2).draw(1, torch.Generator().manual_seed(0))
    assert x[0, 2:].tolist() == [3, 2, 2]
    assert y[0].tolist() == [IGNORE] * 3 + x[0, :2].tolist()


@pytest.mark.parametrize(
    ("task", "message"),
    [({"length": 0}, "length must be at least 1, got 0"), ({"n_digits": 1}, "n_digits must be at least 2, got 1")],
)
def test_bad_numbers_are_refused(task, message):
    for name in ("sort", "reverse"):
        with pytest.raises(ValueError, match=message):
            module(name, **task)
