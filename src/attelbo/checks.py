"""Checks of arguments, with messages of one line that begin with the name: ``check_at_least(1, dim=dim, heads=heads)``.

The owner of a part knows where it stands in the configuration and turns the ValueError into a ``ConfigError``.
"""

import math
from typing import get_args


def check_at_least(least: int, kind: type[Exception] = ValueError, /, **numbers: float | None) -> None:
    """Raise an error of this kind unless each of the numbers is ``least`` or more; None is passed over."""
    for name, number in numbers.items():
        if number is not None and not number >= least:  # not <, which lets NaN pass
            raise kind(f"{name} must be at least {least}, got {number}")


MOST_REPETITIONS = 10_000


def check_repetitions(least: int = 1, /, **numbers: int) -> None:
    """Raise ValueError unless each of the numbers, of layers or steps that follow each other, is between ``least`` and
    ``MOST_REPETITIONS``: more would be built, or computed, for hours."""
    check_at_least(least, **numbers)
    for name, number in numbers.items():
        if number > MOST_REPETITIONS:
            raise ValueError(f"{name} must be at most {MOST_REPETITIONS:,}, got {number:,}")


def check_positive(**numbers: float) -> None:
    """Raise ValueError unless each of the numbers is positive and finite."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {number}")


def check_not_negative(**numbers: float) -> None:
    """Raise ValueError unless each of the numbers is finite and not negative."""
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} must be finite and not negative, got {number}")


def check_below_one(**shares: float) -> None:
    """Raise ValueError unless each of the shares is in [0, 1)."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be in [0, 1), got {share}")


def divisors(number: int) -> list[int]:
    """All numbers that divide a positive one, in their order; of one beyond 10^12 only those up to 10^6."""
    low = [n for n in range(1, min(math.isqrt(number), 10**6) + 1) if number % n == 0]
    high = [] if number > 10**12 else [number // n for n in reversed(low)]
    return [*low, *high[high[:1] == low[-1:] :]]


def check_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless the value is one of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be {' or '.join(get_args(choices))}, got {value!r}")
