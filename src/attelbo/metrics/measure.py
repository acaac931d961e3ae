"""What a number is called where people read it, and what it is counted in."""

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """One row of the table that a run ends with. In JSON it is a list of these, in this order."""

    key: str
    """Of the metric, without the split: ``elbo`` of ``test/elbo``. Its standard error is ``<key>_std_error``."""
    label: str
    unit: str
    """``nats``, ``nats per token``, ``of the labels``, ..."""
    digits: int = 2
    """Behind the decimal point."""
    note: str = ""
    """How it was found, where that is not the same for all runs."""
    better: Literal["more", "less", ""] = ""
    """Which of two values is the better one, where that can be said."""
