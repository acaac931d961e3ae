"""Learning curves as small SVG pictures, drawn by hand: sharp at any size, no script, colors from the page.

The lines have the classes ``curve train`` and ``curve val``; the style sheet of the page says what these
look like in light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Point = tuple[int, float]
"""(optimizer step, value)."""

WIDTH, HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 10, 26
_WARM_UP, _MANY = 0.05, 20
"""Of many points, those in this share of the first steps do not determine the range of values where they would more
than double it: they are often out of scale."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart."""

    kind: Literal["train", "val"]
    label: str
    points: Sequence[Point]

    @property
    def finite(self) -> list[Point]:
        return [(step, value) for step, value in self.points if math.isfinite(value)]


def line_chart(title: str, curves: Sequence[Curve]) -> str:
    """An ``<svg>`` with the curves over optimizer steps; empty if there is nothing to draw."""
    points = [point for curve in curves for point in curve.finite]
    if not points:
        return ""
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    y_ticks, low, high = _values_shown(points, first, last)
    steps = nice_ticks(first, last, 5)
    if first == last:
        first, last = first - 1, last + 1

    def x(step: float) -> float:
        return _LEFT + (step - first) / (last - first) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    clip = "clip-" + "".join(c if c.isalnum() else "-" for c in title)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{clip}"><rect x="{_LEFT - 4}" y="{_TOP - 4}" '
        f'width="{WIDTH - _LEFT - _RIGHT + 8}" height="{HEIGHT - _TOP - _BOTTOM + 8}"/></clipPath>',
    ]
    digits = 6 if len(y_ticks) > 1 else 4  # a single tick is a value as it came
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 7}" y="{y(tick) + 3.5:.1f}" text-anchor="end">'
            f"{short_number(tick, digits)}</text>"
        )
    for tick in steps:
        if first <= tick <= last and tick == round(tick):
            place = f'x="{x(tick):.1f}" y="{HEIGHT - 8}"'
            parts.append(f'<text class="tick" {place} text-anchor="middle">{short_number(tick)}</text>')
    parts.append(f'<g clip-path="url(#{clip})">')
    for curve in curves:
        if not curve.finite:
            continue
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thin_out(curve.finite))
        parts.append(f'<polyline class="curve {curve.kind}" points="{path}"/>')
        if len(curve.finite) == 1 or (curve.kind == "val" and len(curve.finite) <= 60):
            for step, value in curve.finite:
                note = f"<title>{escape(curve.label)}, step {step:,}: {value:.4g}</title>"
                parts.append(
                    f'<circle class="dot {curve.kind}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="3">{note}</circle>'
                )
    return "".join([*parts, "</g></svg>"])


def _values_shown(points: Sequence[Point], first: int, last: int) -> tuple[list[float], float, float]:
    """The ticks of the values of points at steps from ``first`` to ``last``, and the least and the largest value that
    there is room for."""
    warm = first + _WARM_UP * (last - first) if len(points) >= _MANY else first
    every, late = [value for _, value in points], [value for step, value in points if step >= warm]
    if max(every) - min(every) <= 2 * (max(late) - min(late)):
        late = every
    ticks = nice_ticks(min(late), max(late))
    low, high = min(*late, ticks[0]), max(*late, ticks[-1])
    if low == high:
        room = max(0.5, abs(low) / 2)  # beside 1e17, a half is nothing
        low, high = low - room, high + room
    return ticks, low, high


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten from below ``low`` to above ``high``."""
    if low == high:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def short_number(number: float, digits: int = 6) -> str:
    """1500 as 1.5k, -2000000 as −2M."""  # noqa: RUF002 - a minus sign, not a hyphen
    size, letter = next((unit for unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(number) >= unit[0]), (1, ""))
    return f"{number / size:.{digits}g}{letter}".replace("-", "−")  # noqa: RUF001


def thin_out(points: Sequence[Point], most: int = 400) -> list[Point]:
    """At most ``most`` points: neighbours are averaged, the last point is kept as it is."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most - 1))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(round(sum(s for s, _ in g) / len(g)), sum(v for _, v in g) / len(g)) for g in groups]
    return [*means, points[-1]]
