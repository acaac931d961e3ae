"""Weights as pure functions of the optimizer step, without state to be resumed.

In a configuration, a weight is a number or a node:

    weight: {_target_: attelbo.latent.schedules.Linear, fraction: 0.1}
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from attelbo.building import Spec, build
from attelbo.checks import check_at_least, check_not_negative, check_positive


class Schedule(ABC):
    """(step, total_steps) -> weight; steps count from 0."""

    @abstractmethod
    def __call__(self, step: int, total_steps: int) -> float: ...


@dataclass(frozen=True)
class Constant(Schedule):
    """The same ``value`` always."""

    value: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative(value=self.value)

    def __call__(self, step: int, total_steps: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """Warm-up: from ``start`` at step 0 to ``end`` at ``fraction`` of the run, then ``end``.

    Sønderby et al. 2016, "Ladder Variational Autoencoders", sec. 2.3.
    """

    start: float = 0.0
    end: float = 1.0
    fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.fraction)

    def __call__(self, step: int, total_steps: int) -> float:
        _check_total(total_steps)
        return _ramp(step / total_steps, self.start, self.end, self.fraction)


@dataclass(frozen=True)
class Cyclical(Schedule):
    """``n_cycles`` equal cycles, each a warm-up over its first ``fraction``, then ``end``.

    Fu et al. 2019, "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing", eq. 6-7.
    Where the steps do not divide evenly, a cycle has the next larger number of them, and the last one is
    shorter.
    """

    start: float = 0.0
    end: float = 1.0
    n_cycles: int = 4
    fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.fraction)
        check_at_least(1, n_cycles=self.n_cycles)

    def __call__(self, step: int, total_steps: int) -> float:
        _check_total(total_steps)
        period = math.ceil(total_steps / self.n_cycles)
        return _ramp(step % period / period, self.start, self.end, self.fraction)


@dataclass(frozen=True)
class Logistic(Schedule):
    """``end`` * sigmoid(``steepness`` * (step - ``midpoint``)), whatever the length of the run.

    Bowman et al. 2016, "Generating Sentences from a Continuous Space", sec. 3.1.
    """

    midpoint: float = 2500.0
    steepness: float = 0.0025
    end: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative(end=self.end)
        check_positive(steepness=self.steepness)

    def __call__(self, step: int, total_steps: int) -> float:
        # sigmoid(t) as a tanh, which cannot overflow
        return self.end * 0.5 * (1 + math.tanh(0.5 * self.steepness * (step - self.midpoint)))


@dataclass(frozen=True)
class Pulse(Schedule):
    """Over the first ``fraction`` of the run 1 at every ``period``-th step and 0 between, then 1: as a factor of a
    learning rate, it lets the rest of a model take ``period`` steps for one.

    He et al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational Autoencoders", algorithm 1.
    """

    period: int = 10
    fraction: float = 0.2

    def __post_init__(self) -> None:
        check_at_least(1, period=self.period)
        _check_fraction(self.fraction)

    def __call__(self, step: int, total_steps: int) -> float:
        _check_total(total_steps)
        return 1.0 if step >= self.fraction * total_steps or step % self.period == self.period - 1 else 0.0


@dataclass(frozen=True)
class Late(Schedule):
    """0 over the first ``fraction`` of the run, then ``value``."""

    fraction: float = 0.2
    value: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative(value=self.value)
        _check_fraction(self.fraction)

    def __call__(self, step: int, total_steps: int) -> float:
        _check_total(total_steps)
        return self.value if step >= self.fraction * total_steps else 0.0


def build_schedule(weight: Spec | float, name: str = "weight") -> Schedule:
    """The schedule that a configuration's number or node stands for.

    Raises:
        ValueError: a negative or infinite number, or a node that is no schedule; begins with ``name``.
    """
    if isinstance(weight, int | float):
        check_not_negative(**{name: weight})
        return Constant(float(weight))
    schedule = build(weight)
    if not isinstance(schedule, Schedule):
        raise ValueError(f"{name} must be a number or a schedule of attelbo.latent.schedules, got {weight['_target_']}")
    return schedule


def _ramp(position: float, start: float, end: float, fraction: float) -> float:
    if position >= fraction:
        return end
    return start + (end - start) * position / fraction


def _check_ramp(start: float, end: float, fraction: float) -> None:
    check_not_negative(start=start, end=end)
    _check_fraction(fraction, "run or cycle")


def _check_fraction(fraction: float, whole: str = "run") -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be between 0 and 1, a part of the {whole}, got {fraction}")


def _check_total(total_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(
            f"total_steps must be known for this schedule, got {total_steps}: limit the run's epochs or steps"
        )
