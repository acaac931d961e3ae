"""How fast a training is: samples, and tokens where all rows have as many of them, per second."""

import math

MEMORY_S = 3.0
"""The samples per second shown are an average over about this many seconds of training."""


class Throughput:
    """Samples per second of training time, smoothed: an exponential average with a time constant."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._last: tuple[float, int] | None = None

    def pause(self) -> None:
        """The time until the next `update` was not spent on training."""
        self._last = None

    def update(self, now: float, samples: int) -> None:
        """``samples`` have been trained on up to the time ``now``, in seconds."""
        last, self._last = self._last, (now, samples)
        if last is None or now <= last[0]:
            return
        elapsed, trained = now - last[0], samples - last[1]
        keep = 0.0 if self.rate is None else 2 ** (-elapsed / MEMORY_S)
        self.rate = keep * (self.rate or 0.0) + (1 - keep) * trained / elapsed


def rates_of(rows: int, row_tokens: int | None, seconds: float) -> dict[str, float]:
    """``samples_per_second`` of a training and, where each row has as many tokens, ``tokens_per_second``."""
    rate = rows / seconds if seconds else math.nan
    tokens = {} if row_tokens is None else {"tokens_per_second": rate * row_tokens}
    return {"samples_per_second": rate, **tokens}
