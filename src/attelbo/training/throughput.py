"""How fast a training is: samples, and tokens where all rows have as many of them, per second."""

import math

from attelbo.training.callbacks.base import StepperState

_MEMORY_S = 3.0
"""The samples per second shown are an average over about so many seconds of training."""


class Throughput:
    """Samples per second of training time, smoothed: an exponential average with a time constant."""

    def __init__(self, memory_s: float = _MEMORY_S) -> None:
        self.memory_s = memory_s
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
        keep = 0.0 if self.rate is None else 2 ** (-elapsed / self.memory_s)
        self.rate = keep * (self.rate or 0.0) + (1 - keep) * trained / elapsed


def rates_of(stepper: StepperState, seconds: float) -> dict[str, float]:
    """``samples_per_second``, and ``tokens_per_second`` of a text, of so many seconds of training."""
    rate = stepper.rows_seen / seconds if seconds else math.nan
    tokens = {} if stepper.row_tokens is None else {"tokens_per_second": rate * stepper.row_tokens}
    return {"samples_per_second": rate, **tokens}
