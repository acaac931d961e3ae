"""What a number may be: at the ends of each range, and beyond."""

import math

import pytest

from attelbo.checks import check_at_least, check_below_one, check_not_negative, check_positive

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
