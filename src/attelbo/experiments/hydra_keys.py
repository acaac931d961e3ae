"""Hydra's own node, ``hydra``: what it would take without a word, or choke on once the command runs.

Hydra checks the types of its keys. It also takes a key that it does not know, if that is written with ``+``, keys that
have no effect on runs as they are here, and parts that are none, on which a command then ends in a traceback.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from attelbo.building import arguments_of, locate
from attelbo.errors import ConfigError, did_you_mean, nearest, one_line

_FOLDERS = ("hydra.run.dir", "hydra.sweep.subdir", "hydra.job.chdir", "hydra.output_subdir")
"""Keys with which Hydra would choose the folder of a run, or work in it."""

_FILLED_IN = ("hydra.runtime", "hydra.overrides", "hydra.job.num", "hydra.job.id")

_PLUGINS = ("hydra/launcher", "hydra/sweeper")
"""Groups of which one is chosen; of others, such as callbacks, there may be several."""


def refuse_words(parsed: Sequence[Override]) -> None:
    """Raise ConfigError at a word for Hydra itself that is unknown to it or has no effect here."""
    for override in parsed:
        if override.key_or_group == "hydra" or override.key_or_group.startswith(("hydra.", "hydra/")):
            _refuse(override)


def _refuse(override: Override) -> None:
    key, value = override.key_or_group, override.value()
    where = f"{key} (command line)"
    if override.is_delete() and _known(key):
        raise ConfigError(f"{where}: Hydra's own keys cannot be taken away; leave the word out")
    if key in _FOLDERS:
        remedy = "a run is written into <paths.output_dir>/<name>/<run id>; give paths.output_dir=... and name=..."
        raise ConfigError(f"{where}: has no effect here: {remedy}")
    if any(f"{key}.".startswith(f"{filled}.") for filled in _FILLED_IN):
        raise ConfigError(f"{where}: is filled in by Hydra; leave the word out")
    if key in _PLUGINS and isinstance(value, list):
        raise ConfigError(f"{where}: one is chosen, got {override.get_value_element_as_str()}")
    if key == "hydra.sweep.dir" and not str(value).strip():
        raise ConfigError(f"{key} is empty, as an unset variable is; left out, the folder is named by what is swept")
    if key == "hydra.job.env_copy" and isinstance(value, list):
        for name in value:
            if str(name) not in os.environ:
                raise ConfigError(f"{where}: there is no variable {name} in the environment")
    if "/" not in key and not _known(key):
        _, siblings = _walk(key)
        parent, _, last = key.rpartition(".")
        guess = nearest(last, siblings)
        meant = did_you_mean(guess and f"{parent}.{guess}", f"known here: {', '.join(siblings)}")
        raise ConfigError(f"{where}: unknown key{meant}")


def _known(key: str) -> bool:
    """Whether Hydra has a key, or lets any be there."""
    return _walk(key)[0]


def _walk(key: str) -> tuple[bool, Sequence[str]]:
    """Whether Hydra has a key, and all of those that it has where the first unknown part of the name stands."""
    node: Any = HydraConf
    for name in key.split(".")[1:]:
        if not is_dataclass(node):
            break
        known = {field.name: field.type for field in fields(node) if field.name != "defaults"}
        if name not in known:
            return False, list(known)
        node = known[name]
    return True, ()


def check_hydra(hydra: DictConfig) -> None:
    """Check the parts that Hydra builds and the values that it does not check itself.

    Args:
        hydra: its node in a composed configuration.

    Raises:
        ConfigError: a launcher, sweeper or callback is none, or a value is of another kind.
    """
    node: Any = OmegaConf.to_container(hydra, resolve=False)
    for name in ("launcher", "sweeper"):
        target = _target_of(f"hydra.{name}", node[name], f"hydra/{name}=NAME chooses one")
        if target.startswith("attelbo."):
            continue  # checked as any part of a run
        if (plugin := Plugins.instance().class_name_to_class.get(target)) is None:
            raise ConfigError(f"hydra.{name}._target_: no {name} is called {target}; hydra/{name}=NAME chooses one")
        taken = arguments_of(plugin)
        if odd := [key for key in node[name] if key not in ("_target_", *taken)]:
            raise ConfigError(f"hydra.{name}.{odd[0]}: unknown key; known here: {', '.join(taken) or 'none'}")
    for name, part in (node["callbacks"] or {}).items():
        key = f"hydra.callbacks.{name}"
        target = _target_of(key, part, "that of a hydra.experimental.callback.Callback")
        try:
            found: Any = get_class(target) if target.startswith("hydra.") else locate(target)
        except (ConfigError, ImportError, ValueError, InstantiationException) as error:
            raise ConfigError(f"{key}: {one_line(error)}") from error
        if not (isinstance(found, type) and issubclass(found, Callback)):
            raise ConfigError(f"{key}: {target} is no hydra.experimental.callback.Callback")
    verbose = node["verbose"]
    if not isinstance(verbose, bool | str | list):
        raise ConfigError(f"hydra.verbose: expected true, false, or names of loggers, got {verbose!r}")


def _target_of(key: str, node: Any, remedy: str) -> str:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise ConfigError(f"{key}: expected a mapping with _target_, got {node!r}; {remedy}")
    return target


@contextmanager
def building() -> Iterator[None]:
    """A context for code with which Hydra builds parts of its own: their errors get one line.

    Raises:
        ConfigError: an argument of a launcher, sweeper, callback or logger is wrong.
    """
    try:
        yield
    except InstantiationException as error:
        problem, _, key = one_line(error).partition("full_key: ")
        problem = re.sub(r", set env var HYDRA_FULL_ERROR=1.*", "", problem).strip()
        raise ConfigError(f"{key or 'hydra'}: {problem}") from error
    except ValueError as error:
        if not str(error).startswith("Unable to configure"):  # as logging.config says it
            raise
        why = one_line(error.__cause__ or error).partition(" full_key: ")[0]
        raise ConfigError(f"hydra.job_logging or hydra.hydra_logging: {error}: {why}") from error
