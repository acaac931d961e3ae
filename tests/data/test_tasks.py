"""Generated tasks: answers by a solver in plain Python, no question in two splits, the same rows in every run."""

import pytest
import torch

from attelbo.data.batch import IGNORE
from attelbo.data.tasks import TaskDataModule
from attelbo.data.tasks.base import eighth
from attelbo.errors import ConfigError


def module(name: str, sizes: tuple[int, int, int] = (200, 50, 60), seed: int = 0, **task: object) -> TaskDataModule:
    return TaskDataModule(
        name,
        {"_target_": f"attelbo.data.tasks.{name.capitalize()}", **task},
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


SOLVERS = {"sort": lambda x: sorted_row(x, 6), "reverse": lambda x: x[::-1]}


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


def test_rows_are_the_same_for_every_seed_and_their_order_is_not():
    one, other = module("reverse"), module("reverse", seed=1)
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


@pytest.mark.parametrize(
    ("task", "message"),
    [({"length": 0}, "length must be at least 1, got 0"), ({"n_digits": 1}, "n_digits must be at least 2, got 1")],
)
def test_bad_numbers_are_refused(task, message):
    for name in SOLVERS:
        with pytest.raises(ValueError, match=message):
            module(name, **task)
