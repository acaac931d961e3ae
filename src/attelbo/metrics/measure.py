"""How a metric is displayed: its label and unit."""

from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """One row of the table at the end of a run. In JSON it is a list of these fields, in this order."""

    key: str
    """The name of the metric without the split: ``elbo`` for ``test/elbo``. Its standard error, if it has one, is
    ``<key>_std_error``."""
    label: str
    unit: str
    """``nats``, ``nats per token``, ``of the labels``, ..."""
    digits: int = 2
    """After the decimal point."""
    note: str = ""
    """How it was computed, where that differs between runs."""
    better: Literal["more", "less", ""] = ""
    """Whether more or less is better, if either."""
