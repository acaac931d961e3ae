"""Statistics over seeds: a mean with its interval, and the difference of two settings over the seeds they share.

Intervals are Student's, 95 %. A paired test is exact: under the hypothesis of no difference, the sign of each
difference is a coin toss, and all 2^n of them are counted (Fisher 1935, "The Design of Experiments", section 21).
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.05
MOST_EXACT = 16
"""Pairs up to which all signs are counted; above, Student's test is used, which then gives the same."""
_ROUNDING = 1e-9
"""Relative difference that rounding may make between values that should be equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Of the 95 % interval; None where there is none: of a single value, or of values that are not all finite."""
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """The mean of at least one value; without an interval where one of them is not finite."""
        if not all(map(math.isfinite, values)):
            return cls(sum(values) / len(values), None, len(values))
        half = half_width(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), half, len(values))

    def text(self, digits: int = 2) -> str:
        """``17.77 ± 0.11``; more digits where the interval would be rounded to zero, unless it comes from the rounding
        of the numbers themselves."""
        if self.half_width is None:
            return f"{self.mean:z.{digits}f}"
        if _ROUNDING * abs(self.mean) < self.half_width < 1:
            digits = max(digits, 1 - math.floor(math.log10(self.half_width)))
        return f"{self.mean:z.{digits}f} ± {self.half_width:.{digits}f}"


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of n > 1 values, by Student's t with n - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, 1 - LEVEL / 2)) * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Paired:
    """Setting a minus setting b, seed by seed."""

    n: int
    """Seeds for which both have a value that is finite."""
    difference: Estimate
    effect_size: float
    """Cohen's d_z: the mean difference in standard deviations of the differences."""
    p_value: float
    """Two-sided, of the hypothesis of no difference."""
    smallest_p: float
    """The smallest that is possible with so few pairs."""

    def statement(self, a: str, b: str, unit: str = "") -> str:
        """The result in words, and what may be concluded from it."""
        size = f"{self.difference.text()} {unit}".strip()
        numbers = (
            f"{size} over {self.n} shared seeds (95 % interval), d_z = {self.effect_size:.2f}, p = {self.p_value:.3g}"
        )
        if self.smallest_p > LEVEL:
            needed = math.ceil(1 - math.log2(LEVEL))
            return (
                f"{a} minus {b}: {numbers}. {self.n} pairs cannot show a difference at the {LEVEL:.0%} level, whatever "
                f"its size: the smallest possible p is {self.smallest_p:.3g}; {needed} seeds could."
            )
        if self.p_value > LEVEL:
            return (
                f"{a} minus {b}: {numbers}. No difference is shown at the {LEVEL:.0%} level; none is excluded either."
            )
        return f"{a} minus {b}: {numbers}. The difference is significant at the {LEVEL:.0%} level."


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """The comparison of two settings over the seeds for which both are finite; None with fewer than two.

    Args:
        a: seed -> value.
        b: the same of the other setting.
    """
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys()) if math.isfinite(a[seed] - b[seed])]
    n = len(differences)
    if n < 2:
        return None
    spread = statistics.stdev(differences)
    mean = statistics.fmean(differences)
    size = mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    exact = n <= MOST_EXACT
    p = sign_flip_p(differences) if exact else _student_p(size * math.sqrt(n), n - 1)
    return Paired(n, Estimate.of(differences), size, p, 2.0 ** (1 - n) if exact else 0.0)


def sign_flip_p(differences: Sequence[float]) -> float:
    """The share of all 2^n choices of signs whose sum is at least as far from zero as that of the differences."""
    observed = abs(math.fsum(differences)) * (1 - 1e-12)
    sums = (
        math.fsum(sign * d for sign, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    )
    return sum(abs(total) >= observed for total in sums) / 2 ** len(differences)


def _student_p(t: float, degrees: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(t)))
