"""The space of a search: keys with their choices or ranges of values, in Hydra's grammar.

model/likelihood=bernoulli,normal                   one of these
model.latent_dim=range(2,33)                        a whole number, 2 to 32
model.latent_dim=int(interval(2,32))                the same
data.batch_size=tag(log,int(interval(16,512)))      the same on a logarithmic scale
optimizer.lr=tag(log,interval(1e-4,1e-2))           a number
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from attelbo.errors import ConfigError
from attelbo.experiments.composing import is_task_word, session
from attelbo.experiments.grammar import Grammar
from attelbo.experiments.sweeps.expanding import check_count, count_values
from attelbo.experiments.sweeps.specification import Sampler
from attelbo.seeding import derive_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float


@dataclass(frozen=True)
class Parameter:
    """One key: its choices or, if it has none, the numbers from ``low`` to ``high``, both included."""

    key: str
    word: str
    """As it was written."""
    choices: Sequence[str] = ()
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    """Between whole numbers."""
    whole: bool = False
    log: bool = False

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.choices:
            return len(self.choices)
        return (self.high - self.low) // self.step + 1 if self.whole else math.inf

    def at(self, u: float) -> Value:
        """The value at u in [0, 1]: uniform u gives uniform values, on a logarithmic scale if ``log``."""
        if self.choices:
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        if not self.whole:
            return _between(self.low, self.high, u, self.log)
        if self.log:
            return min(max(round(_between(self.low - 0.5, self.high + 0.5, u, True)), int(self.low)), int(self.high))
        return int(self.low) + self.step * min(int(u * self.size), int(self.size) - 1)

    def value(self, text: str) -> Value:
        """The value that :meth:`word_of` wrote."""
        return text if self.choices else int(text) if self.whole else float(text)

    def word_of(self, value: Value) -> str:
        """The override of a job; numbers have six digits, enough to tell trials apart and still readable."""
        return f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}"

    def distribution(self) -> "BaseDistribution":
        """Optuna's."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(list(self.choices))
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.log)


def _between(low: float, high: float, u: float, log: bool) -> float:
    if log:
        return math.exp(_between(math.log(low), math.log(high), u, False))
    return low + u * (high - low)


def space_of(words: Sequence[str]) -> list[Parameter]:
    """The parameters among the words of a search.

    Raises:
        ConfigError: there is none, or one has no values.
    """
    with session() as hydra:
        overrides = Grammar.create(config_loader=hydra.config_loader).parse_overrides(
            [word for word in words if is_task_word(word)]
        )
        found = [_parameter(override) for override in overrides if override.is_sweep_override()]
    if not found:
        raise ConfigError(
            "sweep.sampler: there is nothing to search for: give key=a,b,... or key=interval(low,high), "
            "with tag(log,...) around it for a logarithmic scale"
        )
    return found


def _parameter(override: Override) -> Parameter:
    key, word, value = override.get_key_element(), (override.input_line or "").partition("=")[2], override.value()
    if isinstance(value, Sweep) and value.tags - ({"log"} if isinstance(value, IntervalSweep) else set()):
        remedy = "the only tag is log, around interval(low,high) or int(interval(low,high))"
        raise ConfigError(f"{key} (command line): {word}: {remedy}")
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log, whole = "log" in value.tags, isinstance(value.start, int)
        if not -math.inf < value.start < value.end < math.inf or (log and value.start <= 0):
            raise ConfigError(f"{key} (command line): {word} must be finite and grow{', from above 0' if log else ''}")
        return Parameter(key, word, low=value.start, high=value.end, whole=whole, log=log)
    n_values = count_values(override)
    if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range) and numbers and numbers.step > 0:
        return Parameter(key, word, low=numbers[0], high=numbers[-1], step=numbers.step, whole=True)
    check_count(n_values, f"{key}={word} (command line)")  # each choice is composed
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"{key} (command line): {word} has no value")
    return Parameter(key, word, choices=choices)


def point(space: Sequence[Parameter], sampler: Sampler, seed: int, index: int) -> Mapping[str, Value] | None:
    """Proposal ``index`` of a search that does not learn, a function of the arguments alone; None: the grid is
    exhausted.

    Args:
        space: the parameters.
        sampler: any but tpe.
        seed: that of the sampler.
        index: counted from 0.

    Raises:
        ConfigError: a grid over an interval.
    """
    if sampler == "grid":
        places = _on_grid(space, index)
        if places is None:
            return None
    elif sampler == "quasi_random":
        engine = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed)
        places = engine.fast_forward(index).draw(1, dtype=torch.float64)[0].tolist()
    else:
        generator = torch.Generator().manual_seed(derive_seed(seed, "trial", index))
        places = torch.rand(len(space), generator=generator, dtype=torch.float64).tolist()
    return {parameter.key: parameter.at(u) for parameter, u in zip(space, places, strict=True)}


def _on_grid(space: Sequence[Parameter], index: int) -> list[float] | None:
    """The middle of each cell; the last parameter moves fastest."""
    places: list[float] = []
    for parameter in reversed(space):
        if parameter.size == math.inf or parameter.log:
            raise ConfigError(f"sweep.sampler=grid: {parameter.key}={parameter.word}: a grid is made of listed values")
        index, at = divmod(index, int(parameter.size))
        places.insert(0, (at + 0.5) / parameter.size)
    return None if index else places


def size_of(space: Sequence[Parameter]) -> float:
    """How many settings there are, or infinity."""
    return math.prod(parameter.size for parameter in space)
