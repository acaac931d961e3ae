"""What a number may be: at the ends of each range, and beyond; and what divides it."""

import math

import pytest

from attelbo.checks import (
    check_at_least,
    check_below_one,
    check_not_negative,
    check_positive,
    check_repetitions,
    divisors,
)

RANGES = [
    (lambda **numbers: check_at_least(2, **numbers), (2, math.inf, None), (1, -3, math.nan), "at least 2"),
    (check_positive, (1e-9, 5), (0, -1.0, math.inf, math.nan), "positive and finite"),
    (check_not_negative, (0, 5), (-1e-9, math.inf, math.nan), "finite and not negative"),
    (check_below_one, (0, 0.999), (-0.1, 1, math.nan), r"in \[0, 1\)"),
]


@pytest.mark.parametrize(("check", "within", "beyond", "words"), RANGES, ids=[words for *_, words in RANGES])
def test_the_first_number_out_of_range_is_named(check, within, beyond, words):
    for number in within:
        check(one=number, other=within[0])
    for number in beyond:
        with pytest.raises(ValueError, match=rf"^other must be {words}, got {number}$"):
            check(one=within[0], other=number, third=number)


def test_what_is_repeated_has_a_limit():
    check_repetitions(layers=1, steps=10_000)
    check_repetitions(0, layers=0)
    with pytest.raises(ValueError, match=r"^layers must be at least 1, got 0$"):
        check_repetitions(layers=0)
    with pytest.raises(ValueError, match=r"^steps must be at most 10,000, got 10,001$"):
        check_repetitions(layers=1, steps=10_001)


@pytest.mark.parametrize("number", [1, 2, 9, 12, 36, 97, 1024])
def test_divisors(number):
    assert divisors(number) == [n for n in range(1, number + 1) if number % n == 0]


def test_divisors_of_a_huge_number_take_no_time():
    assert divisors(10**18)[-1] == 10**6
