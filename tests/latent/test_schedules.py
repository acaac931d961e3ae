"""Schedules at known points."""

import math

import pytest

from attelbo.errors import ConfigError
from attelbo.latent.schedules import Constant, Cyclical, Late, Linear, Logistic, Pulse, Schedule, build_schedule

POINTS: list[tuple[Schedule, int, list[tuple[int, float]]]] = [
    (Constant(0.25), 100, [(0, 0.25), (99, 0.25)]),
    (Linear(), 100, [(0, 0.0), (25, 0.5), (50, 1.0), (99, 1.0)]),
    (Linear(start=2.0, end=1.0, fraction=0.2), 100, [(0, 2.0), (10, 1.5), (20, 1.0), (60, 1.0)]),
    (Linear(fraction=0.0), 100, [(0, 1.0), (99, 1.0)]),
    (Linear(fraction=1.0), 100, [(0, 0.0), (50, 0.5), (99, 0.99), (100, 1.0)]),
    # Fu et al.: 4 cycles of 25 steps, each rising over its first half.
    (Cyclical(), 100, [(0, 0.0), (5, 0.4), (10, 0.8), (13, 1.0), (24, 1.0), (25, 0.0), (30, 0.4), (99, 1.0)]),
    (Cyclical(n_cycles=1), 100, [(0, 0.0), (25, 0.5), (50, 1.0), (99, 1.0)]),
    # 10 steps in 3 cycles: periods of 4, the last one of 2.
    (Cyclical(n_cycles=3, fraction=1.0), 10, [(0, 0.0), (3, 0.75), (4, 0.0), (8, 0.0), (9, 0.25)]),
    (Pulse(period=3, fraction=0.5), 12, [(0, 0.0), (1, 0.0), (2, 1.0), (3, 0.0), (5, 1.0), (6, 1.0), (7, 1.0)]),
    (Pulse(period=1), 10, [(0, 1.0), (1, 1.0)]),
    (Late(fraction=0.3, value=2.0), 10, [(0, 0.0), (2, 0.0), (3, 2.0), (9, 2.0)]),
    (Pulse(fraction=0.0), 10, [(0, 1.0), (9, 1.0)]),
    (Logistic(midpoint=10, steepness=0.5), -1, [(10, 0.5), (12, 1 / (1 + math.exp(-1))), (8, 1 / (1 + math.exp(1)))]),
    (Logistic(midpoint=0, steepness=1.0, end=3.0), 5, [(0, 1.5), (10**9, 3.0), (-(10**9), 0.0)]),
]


@pytest.mark.parametrize(("schedule", "total", "points"), POINTS, ids=lambda value: str(value)[:40])
def test_known_points(schedule: Schedule, total: int, points: list[tuple[int, float]]) -> None:
    assert [schedule(step, total) for step, _ in points] == pytest.approx([weight for _, weight in points])


def test_a_number_or_a_node_gives_a_schedule() -> None:
    assert build_schedule(1) == Constant(1.0)
    assert build_schedule(0.5) == Constant(0.5)
    node = {"_target_": "attelbo.latent.schedules.Cyclical", "n_cycles": 2}
    assert build_schedule(node) == Cyclical(n_cycles=2)
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_schedule({"_target_": "attelbo.latent.schedules.Sawtooth"})


@pytest.mark.parametrize("schedule", [Linear(), Cyclical(), Late(), Pulse()])
def test_a_run_without_end_is_refused(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"^total_steps must be known .* got -1"):
        schedule(0, -1)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Constant, {"value": -1.0}, r"^value must be finite and not negative, got -1.0"),
        (Linear, {"end": math.inf}, r"^end must be finite"),
        (Linear, {"start": -0.5}, r"^start must be finite and not negative, got -0.5"),
        (Linear, {"fraction": 1.5}, r"^fraction must be between 0 and 1"),
        (Cyclical, {"n_cycles": 0}, r"^n_cycles must be at least 1, got 0"),
        (Cyclical, {"fraction": -0.1}, r"^fraction must be between 0 and 1"),
        (Late, {"fraction": -0.1}, r"^fraction must be between 0 and 1"),
        (Late, {"value": -1.0}, r"^value must be finite and not negative, got -1.0"),
        (Pulse, {"period": 0}, r"^period must be at least 1, got 0"),
        (Pulse, {"fraction": 1.1}, r"^fraction must be between 0 and 1"),
        (Logistic, {"steepness": 0.0}, r"^steepness must be positive and finite, got 0.0"),
        (Logistic, {"end": -1.0}, r"^end must be finite and not negative, got -1.0"),
    ],
)
def test_refuses_what_makes_no_sense(kind: type[Schedule], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
