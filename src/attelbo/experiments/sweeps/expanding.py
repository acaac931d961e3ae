"""The jobs of a multirun: every combination of the swept values, but for lists that are zipped.

    seed=1,2 model.latent_dim=2,8                       four jobs
    zip:model.latent_dim=2,8 zip:optimizer.lr=1e-2,1e-3     two jobs: (2, 1e-2) and (8, 1e-3)

Lists under one name advance in step; ``zip2:`` and so on are further names, combined with the others.
"""

import itertools
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import HydraException

from attelbo.errors import ConfigError, first_line
from attelbo.experiments.composing import is_task_word, session
from attelbo.experiments.configuration import compose, parse
from attelbo.experiments.grammar import Grammar

_ZIPPED = re.compile(r"(zip\w*):(.+=.*)", re.DOTALL)

MOST_JOBS = 10_000
"""Of one command: all are composed and checked before the first of them runs, so they are counted before that."""

Job = list[str]
"""The overrides of a job, Hydra's own words among them."""


def check_count(jobs: int, what: str) -> None:
    """Raise ConfigError where ``what`` stands for more jobs than one command can have."""
    if jobs > MOST_JOBS:
        most = f"more than the {MOST_JOBS:,} that one command composes; divide them among several commands"
        raise ConfigError(f"{what}: {jobs:,} jobs, {most}")


def count_values(override: Override) -> int:
    """How many values a list or a range stands for, without listing those of a range.

    Raises:
        ConfigError: a range without an end.
    """
    value, word = override.value(), override.input_line
    if isinstance(value, RangeSweep):
        start, stop, step = (Decimal(number) for number in (value.start or 0, value.stop or 0, value.step))
        try:
            return max(0, math.ceil((stop - start) / step))
        except (ArithmeticError, ValueError) as error:  # infinite, NaN or in steps of 0
            raise ConfigError(f"{word} (command line): start, stop and step are finite, and step is not 0") from error
    return sum(1 for _ in override.sweep_string_iterator())


def expand(root: str, overrides: Sequence[str], *, config_dir: Path | None = None) -> list[Job] | None:
    """The jobs of a multirun; None if the sweeper chooses them while they run.

    Raises:
        ConfigError: what all jobs share is wrong, zipped lists differ in length, no job is left, or more than
            ``MOST_JOBS`` are.
    """
    zipped = [match for word in overrides if (match := _ZIPPED.fullmatch(word))]
    others = [word for word in overrides if not _ZIPPED.fullmatch(word)]
    shared = compose(root, others, config_dir=config_dir, multirun=True)
    sweeper = shared.hydra.sweeper
    if not sweeper._target_.endswith(".BasicSweeper"):
        if zipped:
            raise ConfigError(f"{zipped[0][0]} (command line): zipped lists are for hydra/sweeper=basic")
        return None
    for_hydra = [word for word in others if not is_task_word(word)]
    with session() as hydra:
        words = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(filter(is_task_word, others))
        parsed = Grammar.create(config_loader=hydra.config_loader).parse_overrides(words)
        if wide := next((each for each in parsed if each.is_sweep_override() and not each.is_discrete_sweep()), None):
            raise ConfigError(f"{wide.input_line} (command line): an interval is for a search: add sweep.sampler=tpe")
        for each in parsed:
            _refuse_empty(each)
        axes = _axes([(match[1], match[2]) for match in zipped], hydra.config_loader)
        n_jobs = math.prod([*(count_values(each) for each in parsed if each.is_sweep_override()), *map(len, axes)])
        if not n_jobs:
            raise ConfigError("command line: no job is left: a range of swept values is empty")
        check_count(n_jobs, "command line")
        try:
            product = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        except HydraException as error:
            raise ConfigError(f"command line: {first_line(error)}") from error
    return [[*for_hydra, *job, *itertools.chain(*rows)] for job in product for rows in itertools.product(*axes)]


def is_zipped(word: str) -> bool:
    """Whether a word is a zipped list."""
    return _ZIPPED.fullmatch(word) is not None


def latest(*parts: Sequence[str]) -> list[str]:
    """The words of all parts; of two for one key only the later."""
    words: dict[str, str] = {}
    for word in itertools.chain(*parts):
        match = _ZIPPED.fullmatch(word)
        words[(match[2] if match else word).partition("=")[0].lstrip("+~")] = word
    return list(words.values())


def shared_words(overrides: Sequence[str]) -> list[str]:
    """The overrides that are the same for all jobs, and those for Hydra itself."""
    others = [word for word in overrides if not _ZIPPED.fullmatch(word)]
    return [override.input_line or "" for override in parse(others) if not override.is_sweep_override()]


def _axes(zipped: Sequence[tuple[str, str]], loader: ConfigLoader) -> list[list[Job]]:
    """The rows of each name: the words at one position of all its lists.

    Raises:
        ConfigError: the lists of a name differ in length.
    """
    lists: dict[str, list[list[str]]] = {}
    for name, word in zipped:
        (override,) = parse([word])
        override.config_loader = loader
        lists.setdefault(name, []).append(_values(override))
    for name, columns in lists.items():
        if len({len(column) for column in columns}) > 1:
            lengths = " and ".join(f"{column[0].partition('=')[0]} {len(column)}" for column in columns)
            raise ConfigError(f"{name}: (command line): zipped lists must be equally long, got {lengths} values")
    return [[list(row) for row in zip(*columns, strict=True)] for columns in lists.values()]


def _refuse_empty(override: Override) -> None:
    """Raise ConfigError at a pattern of names that no choice has."""
    if isinstance(override.value(), Glob) and not list(override.sweep_string_iterator()):
        group = override.key_or_group
        raise ConfigError(f"{override.input_line} (command line): no choice is called so; attelbo list {group}")


def _values(override: Override) -> list[str]:
    """An override for each of the values of a list."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line} (command line): a zipped list is written value,value,...")
    _refuse_empty(override)
    check_count(count_values(override), f"{override.input_line} (command line)")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
