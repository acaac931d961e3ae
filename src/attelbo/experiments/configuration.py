"""From the words of a command to a checked configuration, or to an error of one line.

``compose`` lets Hydra put the YAML files and the overrides together and resolves the result to plain
containers; ``check`` compares every key and value with the code it configures. Both raise ``ConfigError``
with one line that names the file (or the command line), the key and the remedy. The rest of attelbo sees
plain dicts only, never an OmegaConf object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from attelbo.checking import GIVEN_TO_MODELS, FaultError, Given, Part, Parts, check_node, naming
from attelbo.errors import ConfigError
from attelbo.experiments import explaining, origins
from attelbo.experiments.composing import session
from attelbo.experiments.grammar import Grammar, malformed
from attelbo.experiments.hydra_keys import check_hydra, refuse_words
from attelbo.experiments.listing import config_folders
from attelbo.experiments.quoting import quoted
from attelbo.experiments.settings import Evaluation, Init
from attelbo.experiments.sweeps.launching import build_own, own_settings

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


@dataclass(frozen=True)
class Paths:
    """The node ``paths``: where data are looked for and where runs are written."""

    data_dir: str
    output_dir: str


@dataclass(frozen=True)
class Train:
    """The keys of train.yaml: its own, and one for each group of parts."""

    name: str
    seed: int
    ckpt: str | None
    tags: Sequence[str]
    init: Init
    evaluation: Evaluation
    paths: Paths
    data: Annotated[Part, Given()]
    model: Part
    optimizer: Part
    scheduler: Part
    trainer: Annotated[Part, Given(["run_dir", "seed", "callbacks"])]
    logger: Parts
    callbacks: Parts


SCHEMAS = {"train": Train}
"""Root files without ``_target_``, and what their keys must be."""


@dataclass(frozen=True)
class Composition:
    """A composed configuration, and what is needed to say where each of its keys comes from."""

    root: str
    config: dict[str, Any]
    """Resolved, plain containers, without Hydra's own node."""
    overrides: list[str]
    choices: dict[str, str | None]
    """See :func:`choices_of`."""
    hydra: DictConfig = field(repr=False, compare=False)
    """Hydra's own node: mode, sweeper, launcher, directories."""
    folders: list[Path] = field(repr=False, compare=False)


def compose(
    root: str, overrides: Sequence[str] = (), *, config_dir: Path | None = None, multirun: bool = False
) -> Composition:
    """Compose ``conf/<root>.yaml`` with the choices and overrides given, as Hydra does, and resolve it.

    Args:
        root: the name of a root file, such as train or sample.
        overrides: as in Hydra: ``data=mnist``, ``model.latent_dim=20``, ``+key=value``, ``~key``.
        config_dir: a folder that adds to the groups, as ``conf/`` in the working folder does.
        multirun: the overrides may sweep (``seed=1,2``); swept values are left out of the composition.

    Raises:
        ConfigError: an override, a choice, a file or an interpolation is wrong.
    """
    folders = config_folders(config_dir)
    parsed = parse(overrides)
    refuse_duplicates(parsed)
    refuse_words(parsed)
    if multirun:
        overrides = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    else:
        _refuse_sweeps(parsed, root)
    words = with_folders(overrides, folders)
    with session() as hydra:
        try:
            full = hydra.compose_config(root, words, run_mode=RunMode.MULTIRUN if multirun else RunMode.RUN)
        except (
            HydraException,
            OmegaConfBaseException,
            YAMLError,
            OSError,
            ValueError,
            TypeError,
            AssertionError,
            RecursionError,
        ) as error:
            asked = parse(with_folders([override.input_line or "" for override in parsed], folders))
            raise ConfigError(explaining.composition(error, root, asked, folders, hydra)) from error
        chosen = choices_of(full.hydra)
        check_hydra(full.hydra)
        _refuse_hidden(chosen, folders)
        return Composition(
            root=root,
            config=_resolve(full, root, words, folders, hydra),
            overrides=list(overrides),
            choices=chosen,
            hydra=full.hydra,
            folders=folders,
        )


def choices_of(hydra: Any) -> dict[str, str | None]:
    """Group -> the choice that was made, if any, from Hydra's own node; without Hydra's own groups."""
    return {group: choice for group, choice in hydra.runtime.choices.items() if group.partition("/")[0] != "hydra"}


def check(composition: Composition) -> None:
    """Check every key and value of a composed configuration against the code it configures.

    Raises:
        ConfigError: at the first wrong key or value, with its file and the nearest right spelling.
    """
    launcher = own_settings(composition.hydra.launcher)
    try:
        check_node(composition.config, schema=SCHEMAS.get(composition.root))
        if launcher is not None:
            check_node(launcher, "hydra.launcher")
    except FaultError as fault:
        words = with_folders(composition.overrides, composition.folders)
        with session() as hydra:
            layers = origins.read_layers(hydra, composition.root, words, composition.folders)
        raise ConfigError(explaining.fault(fault, layers)) from fault
    if launcher is not None:
        build_own(launcher)


def check_again(config: Mapping[str, Any], file: Path) -> None:
    """Check the configuration of a run, which was checked when it began and may have been edited since, or be of
    another version of attelbo.

    Raises:
        ConfigError: at the first wrong key or value.
    """
    with naming(file):
        check_node(config, schema=SCHEMAS["train"])
        check_node(config["model"], "model", given=GIVEN_TO_MODELS)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Raises:
        ConfigError: a word is not of the form key=value.
    """
    try:
        parsed = Grammar.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise malformed(error.override or "") from error
    except RecursionError as error:
        raise ConfigError("command line: a value is nested too deeply") from error
    if nameless := [override for override in parsed if not override.key_or_group]:
        raise malformed(nameless[0].input_line or "")
    return parsed


def with_folders(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The overrides, with the user's folders put on Hydra's search path.

    Raises:
        ConfigError: a folder given as ``hydra.searchpath`` does not exist.
    """
    own = [word for word in overrides if not word.startswith("hydra.searchpath=")]
    given = [entry for override in parse([w for w in overrides if w not in own]) for entry in _entries(override)]
    for entry in given:
        if not entry.startswith("pkg://") and not Path(entry.removeprefix("file://")).is_dir():
            raise ConfigError(f"hydra.searchpath (command line): no such folder: {entry}")
    path = [f"file://{folder}" for folder in folders[1:]] + given
    return [*own, f"hydra.searchpath=[{','.join(map(quoted, path))}]"] if path else own


def _entries(override: Override) -> list[str]:
    value = override.value()
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def refuse_duplicates(parsed: Sequence[Override]) -> None:
    """Raise ConfigError where a key is given twice."""
    seen: dict[str, Override] = {}
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        if key in seen:
            first, second = seen[key].input_line, override.input_line
            raise ConfigError(f"{key} (command line): given twice, as '{first}' and '{second}'; keep one")
        seen[key] = override


def _refuse_sweeps(parsed: Sequence[Override], root: str) -> None:
    remedy = "; add -m to run one job per value" if root == "train" else ", and this command runs once: give one value"
    for override in parsed:
        if override.is_sweep_override():
            key, _, value = (override.input_line or "").partition("=")
            raise ConfigError(f"{key} (command line): '{value}' is a sweep{remedy}, or write {key}=[...] for a list")


def _refuse_hidden(chosen: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """The user's folders add to attelbo's own and cannot replace its files; say so rather than ignore one."""
    for group, choice in chosen.items():
        found = [file for folder in folders if (file := folder / group / f"{choice}.yaml").is_file()]
        for file in found[1:]:
            if file.read_bytes() != found[0].read_bytes():
                name = origins.shown(file, folders)
                raise ConfigError(f"{name}: hidden by attelbo's own {group}={choice}; give the file another name")


def _resolve(
    full: DictConfig, root: str, words: Sequence[str], folders: Sequence[Path], hydra: "Hydra"
) -> dict[str, Any]:
    """Plain containers with every interpolation resolved and nothing missing."""
    outer = HydraConfig.instance().cfg
    OmegaConf.set_readonly(full.hydra, True)
    HydraConfig.instance().cfg = full  # pyright: ignore[reportAttributeAccessIssue] - for interpolations like ${hydra:runtime.cwd}
    own = {key: node for key, node in full.items_ex(resolve=False) if key != "hydra"}
    task = DictConfig(own, flags={"no_deepcopy_set_nodes": True})  # the nodes themselves: nobody else resolves them
    try:
        plain = OmegaConf.to_container(task, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, RecursionError) as error:
        if not isinstance(error, OmegaConfBaseException):
            raise ConfigError("a value is nested too deeply; mend it in its file") from error
        layers = origins.read_layers(hydra, root, words, folders)
        raise ConfigError(explaining.resolution(error, layers)) from error
    finally:
        HydraConfig.instance().cfg = outer
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
