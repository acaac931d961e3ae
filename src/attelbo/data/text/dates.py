"""Dates as people write them, to be translated to ISO 8601: "3 May 2021" -> "2021-05-03".

A parallel text that needs no file and has an answer for every row. Each day of two centuries belongs to one split, so
that a model is asked for days which it has not seen.
"""

import datetime
from collections.abc import Callable
from pathlib import Path

import torch

from attelbo.checks import check_at_least
from attelbo.data.module import fixed_generator
from attelbo.data.text.aligned import Pairs, ParallelText
from attelbo.data.text.source import Source

FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
N_DAYS = (LAST - FIRST).days + 1

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _ordinal(day: int) -> str:
    ending = "th" if day // 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


# Not strftime, whose names of months follow the machine's locale.
FORMATS: tuple[Callable[[datetime.date, str, str], str], ...] = (
    lambda d, month, _: f"{d.day} {month} {d.year}",
    lambda d, month, _: f"{month} {d.day}, {d.year}",
    lambda d, month, _: f"{d.day} {month[:3]} {d.year}",
    lambda d, month, _: f"{month[:3]} {d.day:02} {d.year}",
    lambda d, month, _: f"{d.day}-{month[:3].upper()}-{d.year}",
    lambda d, month, _: f"{month} {_ordinal(d.day)}, {d.year}",
    lambda d, month, _: f"the {_ordinal(d.day)} of {month} {d.year}",
    lambda d, month, weekday: f"{weekday}, {d.day} {month} {d.year}",
    lambda d, month, weekday: f"{weekday[:3].lower()} {month[:3].lower()} {d.day} {d.year}",
    lambda d, *_: f"{d.day}.{d.month}.{d.year}",
    lambda d, *_: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d, *_: f"{d.year}/{d.month}/{d.day}",
    lambda d, *_: f"{d.year}{d.month:02}{d.day:02}",
)
"""(day, month's name, weekday) -> one way to write it. None is ambiguous."""


class Dates(Source[ParallelText]):
    """So many days of 1900 to 2099 in each split, each written in one of 13 ways.

    Args:
        n_train: rows to train on.
        n_validation: rows to choose weights by.
        n_test: rows to test on.

    Raises:
        ValueError: a split is empty, or there are not as many days.
    """

    def __init__(self, n_train: int = 20_000, n_validation: int = 1_000, n_test: int = 1_000) -> None:
        check_at_least(1, n_train=n_train, n_validation=n_validation, n_test=n_test)
        if n_train + n_validation + n_test > N_DAYS:
            raise ValueError(f"n_train + n_validation + n_test must be at most {N_DAYS:,}, the days of 1900 to 2099")
        self.sizes = (n_train, n_validation, n_test)

    def load(self, root: Path) -> ParallelText:
        """Write the dates; ``root`` is not used. The evaluated rows do not depend on ``n_train``."""
        generator = fixed_generator("dates")
        days = torch.randperm(N_DAYS, generator=generator)
        formats = torch.randint(len(FORMATS), (N_DAYS,), generator=generator)
        _, n_validation, n_test = self.sizes
        first = (n_validation + n_test, 0, n_validation)
        return ParallelText(
            *(
                _pairs(days[start : start + n].tolist(), formats[start : start + n].tolist())
                for start, n in zip(first, self.sizes, strict=True)
            )
        )


def _pairs(days: list[int], formats: list[int]) -> Pairs:
    dates = [FIRST + datetime.timedelta(day) for day in days]
    written = [
        FORMATS[form](date, MONTHS[date.month - 1], DAYS[date.weekday()])
        for date, form in zip(dates, formats, strict=True)
    ]
    return Pairs(written, [date.isoformat() for date in dates])
