"""From laps to rates and ratios, and to a JSON file."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.turns import Race

Timed = list[tuple[int, Any]]
"""Rows and the Span that they took."""


def compare(race: Race, ours: str, bare: str) -> dict[str, dict[str, Any]]:
    """For each contestant how fast it is, and how fast in relation to the bare loop: medians over the rounds, with the
    smallest and the largest. The first lap warms up and is told apart.

    A ratio is made within a round, from two laps that were run one after the other; above 1 the contestant is faster.
    """
    result: dict[str, dict[str, Any]] = {}
    train = {name: [(lap.rows, lap.train) for lap in laps[1:]] for name, laps in race.laps.items()}
    whole = {name: [(lap.rows, lap.whole) for lap in laps[1:]] for name, laps in race.laps.items()}
    for name, (first, *others) in race.laps.items():
        result[name] = {
            "train": _compare(train[name], train[bare]),
            "whole": _compare(whole[name], whole[bare]),
            "ours_is_faster": _compare(train[ours], train[name])["ratio"],
            "rounds": len(others),
            "rows": first.rows,
            "validation": others[-1].validation,
            # What compiling and other preparations cost, which only the first lap pays.
            "first_lap_extra_seconds": first.train.wall - median(lap.train.wall for lap in others),
            "memory": race.memory[name],
            "gpu_memory": others[-1].gpu_memory,
            "laps": [asdict(lap) for lap in (first, *others)],
        }
    return result


def _compare(own: Timed, bare: Timed) -> dict[str, Any]:
    def rates(timed: Timed, clock: Literal["wall", "cpu"]) -> list[float]:
        return [rows / getattr(span, clock) for rows, span in timed]

    def ratio(clock: Literal["wall", "cpu"]) -> dict[str, float]:
        return spread([a / b for a, b in zip(rates(own, clock), rates(bare, clock), strict=True)])

    return {"rows_per_second": spread(rates(own, "wall")), "ratio": ratio("wall"), "cpu_ratio": ratio("cpu")}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def save(result: dict[str, Any], folder: Path) -> Path:
    """Write the result as JSON, named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
