"""Learning-rate schedules: pure functions (step, total_steps) -> factor of the optimizer's ``lr``.

A schedule is independent of the optimizer and has no state, so a resumed run needs only its step. Positions are
fractions of the training, so that the same YAML serves runs of any length; only a warm-up may be given in steps, as in
papers. Steps are optimizer steps counted from 0; from ``total_steps`` on the last factor holds.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from attelbo.checks import check_at_least, check_repetitions


class Constant:
    """The factor 1 throughout."""

    def __call__(self, step: int, total_steps: int) -> float:
        return 1.0


class Cosine:
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov & Hutter 2017, eq. 5, one cycle).

    Args:
        warmup: fraction of the training with a rising factor, or, from 1 on, the number of such steps; the first has
            1/n, not 0.
        final: the factor at the end.

    Raises:
        ValueError: ``warmup`` below 0, or neither a fraction nor a whole number, or ``final`` outside [0, 1].
    """

    def __init__(self, warmup: float = 0.0, final: float = 0.0) -> None:
        _check_ramps(warmup, final)
        self.warmup = warmup
        self.final = final

    def __call__(self, step: int, total_steps: int) -> float:
        rising = _rising_steps(self.warmup, total_steps)
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, total_steps - rising))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class WarmupStableDecay:
    """Linear warm-up, a plateau, then down to ``final`` in a straight line (WSD; Hu et al. 2024, "MiniCPM").

    The decay is exponential there. Ours is a straight line, with which Hägele et al. 2024 ("Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations") come as far as with a cosine.

    With ``decay=1`` there is no plateau: the linear decay of BERT.

    Args:
        warmup: fraction of the training with a rising factor, or, from 1 on, the number of such steps.
        decay: fraction of the training, its last, with a falling factor; at most what the warm-up leaves.
        final: the factor at the end.

    Raises:
        ValueError: as :class:`Cosine`, or ``decay`` outside (0, 1].
    """

    def __init__(self, warmup: float = 0.05, decay: float = 0.2, final: float = 0.0) -> None:
        _check_ramps(warmup, final)
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be a fraction of the training in (0, 1], got {decay}")
        self.warmup = warmup
        self.decay = decay
        self.final = final

    def __call__(self, step: int, total_steps: int) -> float:
        rising = _rising_steps(self.warmup, total_steps)
        if step < rising:
            return (step + 1) / rising
        falling, left = min(round(self.decay * total_steps), total_steps - rising), max(0, total_steps - step)
        return 1.0 if left >= falling else self.final + (1 - self.final) * left / falling


def _check_ramps(warmup: float, final: float) -> None:
    if not warmup >= 0 or (warmup >= 1 and warmup % 1 != 0):
        raise ValueError(f"warmup must be a fraction of the training in [0, 1) or a number of steps, got {warmup}")
    if not 0 <= final <= 1:
        raise ValueError(f"final must be a factor in [0, 1], got {final}")


def _rising_steps(warmup: float, total_steps: int) -> int:
    return round(warmup * total_steps if warmup < 1 else warmup)


class InverseSquareRoot:
    """Linear warm-up, then down with the root of the step, sqrt(warmup / step) (Vaswani et al. 2017, eq. 3, whose
    factor dim^-0.5 warmup^-0.5 is the optimizer's ``lr`` here).

    Args:
        warmup: steps with a rising factor; the first has 1 / warmup.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(self, warmup: int = 4000) -> None:
        check_at_least(1, warmup=warmup)
        self.warmup = warmup

    def __call__(self, step: int, total_steps: int) -> float:
        return min((step + 1) / self.warmup, math.sqrt(self.warmup / (step + 1)))


class StepDecay:
    """Multiply by ``factor`` at each milestone.

    Args:
        milestones: fractions of the training, rising.
        factor: the multiplier at each milestone.

    Raises:
        ValueError: milestones outside (0, 1) or not rising, or ``factor`` outside (0, 1].
    """

    def __init__(self, milestones: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> None:
        if not all(0 < m < 1 for m in milestones) or not all(a < b for a, b in pairwise(milestones)):
            raise ValueError(f"milestones must be rising fractions of the training in (0, 1), got {list(milestones)}")
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be in (0, 1], got {factor}")
        self.milestones = tuple(milestones)
        self.factor = factor

    def __call__(self, step: int, total_steps: int) -> float:
        return self.factor ** sum(step >= milestone * total_steps for milestone in self.milestones)


class GrowingStages:
    """Stages that grow while the rate falls: 10^(-i / (stages - 1)) in stage i (Burda, Grosse & Salakhutdinov 2016).

    The importance weighted autoencoder was trained for 3^i passes at 0.001 * 10^(-i/7), i = 0..7, 3,280
    passes in all (section 5 of arXiv:1509.00519). Here the same proportions are scaled to the length of the training;
    with 3,280 epochs the boundaries are theirs.

    Args:
        stages: their number; the last has a tenth of the rate.
        growth: how many times longer each stage is than the one before.

    Raises:
        ValueError: fewer than two stages, or ``growth`` below 1.
    """

    def __init__(self, stages: int = 8, growth: int = 3) -> None:
        check_repetitions(2, stages=stages)
        check_at_least(1, growth=growth)
        self.stages = stages
        # Units (passes at full length) at which each stage but the first begins.
        *self.boundaries, self.units = accumulate(growth**i for i in range(stages))

    def __call__(self, step: int, total_steps: int) -> float:
        # Whole numbers on both sides: no rounding moves a boundary.
        stage = sum(step * self.units >= boundary * total_steps for boundary in self.boundaries)
        return 10 ** (-stage / (self.stages - 1))
