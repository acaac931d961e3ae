"""The settings of a sweep besides the words of its jobs: ``conf/sweep/<name>.yaml``, and ``sweep.KEY=VALUE``.

    words      of the command line, for all jobs: lists, zip:lists, and for a search intervals
    sampler    how a search chooses its jobs; null: there is a job for each combination

``sweep=NAME`` stands for the words of its file; of two words for one key the command line's counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attelbo.checking import FaultError, check_node
from attelbo.checks import check_at_least
from attelbo.errors import ConfigError, did_you_mean
from attelbo.experiments.configuration import parse, refuse_duplicates
from attelbo.experiments.listing import choices, config_folders, nearest_of
from attelbo.experiments.origins import COMMAND_LINE, read_config_file, shown
from attelbo.experiments.sweeps.expanding import latest

Sampler = Literal["tpe", "random", "quasi_random", "grid"]
Direction = Literal["minimize", "maximize"]
Pruner = Literal["median", "successive_halving"]


@dataclass(frozen=True)
class Sweep:
    """The keys of a sweep's file.

    Raises:
        ValueError: a number is out of range; the message begins with its name.
    """

    words: Sequence[str] = ()
    sampler: Sampler | None = None
    """tpe learns from the jobs before (Bergstra et al. 2011), quasi_random are points of a scrambled Sobol sequence."""
    n_trials: int = 20
    """Jobs of a search."""
    metric: str | None = None
    """The validation metric that is optimized; None: the one that the model is monitored by."""
    direction: Direction | None = None
    """Of a metric that is named here."""
    pruner: Pruner | None = None
    """What stops a job that does worse than others did: worse than their median at the same validation, or not among
    the best quarter at the validations warmup, 4 warmup, 16 warmup, ...; None: nothing."""
    warmup: int = 1
    """Validations of a job before it may be stopped."""
    concurrent: int = 1
    """Jobs that are chosen at a time, and given to the launcher together."""
    seed: int = 0
    """Of the sampler."""

    def __post_init__(self) -> None:
        check_at_least(1, n_trials=self.n_trials, warmup=self.warmup, concurrent=self.concurrent)
        if (self.metric is None) != (self.direction is None):
            raise ValueError("metric and direction go together: val/loss is to minimize, val/elbo to maximize")
        if self.metric is not None and not self.metric.startswith("val/"):
            raise ValueError(f"metric must be one of validation, val/..., got {self.metric}: the test comes after")


def is_sweep_word(word: str) -> bool:
    """Whether a word is meant for the sweep, not for its jobs."""
    return word.startswith(("sweep=", "sweep."))


def read(words: Sequence[str], config_dir: Path | None = None) -> Sweep:
    """The settings of the sweep that the words of a command name, if they name one, with all words for its jobs.

    Raises:
        ConfigError: there is no such sweep, or a key or value of it is wrong.
    """
    parsed = parse([word for word in words if is_sweep_word(word)])
    refuse_duplicates(parsed)
    own = {override.key_or_group: override for override in parsed}
    name = own.pop("sweep").value() if "sweep" in own else None
    content, where = _file(str(name), config_dir) if name is not None else ({}, COMMAND_LINE)
    given: dict[str, Any] = {key.removeprefix("sweep."): override.value() for key, override in own.items()}
    try:
        check_node({**content, **given}, "sweep", Sweep)
        sweep = Sweep(**{**content, **given})
    except FaultError as fault:
        key = fault.key.removeprefix("sweep.").partition("[")[0]
        guess = did_you_mean(fault.meant)
        raise ConfigError(f"{fault.key} ({COMMAND_LINE if key in given else where}): {fault.problem}{guess}") from fault
    except ValueError as error:
        raise ConfigError(f"sweep.{error} [{where}]") from error
    if sweep.sampler is None and (idle := [key for key in given if key not in ("words", "sampler")]):
        raise ConfigError(f"sweep.{idle[0]} ({COMMAND_LINE}): is for a search; add sweep.sampler=tpe, or leave it out")
    others = [word for word in words if not is_sweep_word(word)]
    return Sweep(**{**content, **given, "words": latest(sweep.words, others)})


def _file(name: str, config_dir: Path | None) -> tuple[Mapping[str, Any], str]:
    """The content of a sweep's file, and the file's name."""
    folders = config_folders(config_dir)
    known = choices(folders).get("sweep", {})
    if name not in known:
        raise ConfigError(f"sweep={name} ({COMMAND_LINE}): no such choice{nearest_of(name, known)}")
    where = shown(known[name], folders)
    content = read_config_file(known[name], folders)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: a mapping is expected at the top; mend the YAML")
    return content, where
