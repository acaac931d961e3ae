"""One helpful line for everything that can go wrong in a configuration.

Hydra and OmegaConf say what they could not do; here the composition is inspected again to say where it was asked for
(which file, or the command line) and what was probably meant: only when something is wrong, so it may take its time.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from attelbo.checking import FaultError
from attelbo.errors import did_you_mean, first_line, nearest
from attelbo.experiments.grammar import wrong_kind
from attelbo.experiments.listing import choices, nearest_of, no_such_part
from attelbo.experiments.origins import (
    COMMAND_LINE,
    Layers,
    arguments_at,
    has,
    keys,
    leaf,
    load,
    nearest_key,
    parent,
    read_layers,
    select,
    shown,
)

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

OPTIONAL_GROUPS = ("experiment", "debug", "model/")
"""Groups with these prefixes may be left out; a model itself says which parts it needs."""
GLOBAL = "begin the file with the line: # @package _global_"
"""The remedy for a file of experiment/ or debug/ that was merged under its group's name, not at the root."""

_NOT_MEANT = ("_target_", "hydra")
"""Keys that are not offered in place of one that is not known."""


def fault(fault: FaultError, found: Layers) -> str:
    """The message for a fault that ``check`` found."""
    where = found.where(fault.key)
    if fault.key in found.groups and fault.problem.startswith("unknown key"):
        return f"{fault.key} ({where}): not a key; {GLOBAL}"
    group = fault.key.replace(".", "/")
    if group in found.groups and where == COMMAND_LINE:
        return f"{fault.key} ({where}): {fault.problem}; choose with {group}=NAME"
    if fault.problem.startswith("is missing"):
        return f"{fault.key} ({where}): {fault.problem}; a ~ may have taken it away"
    target = f"{parent(fault.key)}._target_"
    chosen = COMMAND_LINE if found.on_command_line(target) else found.file(target)
    if fault.unknown and chosen and where not in (COMMAND_LINE, chosen):
        # A file's settings for a part that has been chosen otherwise.
        left_out = [key for key in fault.unknown if not found.on_command_line(key)]
        words = f"{' '.join(f'~{key}' for key in left_out)} {'leaves it' if len(left_out) == 1 else 'leave them'} out"
        return f"{fault.key} ({where}): {fault.problem}; {words} [{chosen}]"
    return f"{fault.key} ({where}): {fault.problem}{found.meant(fault.meant)}"


def resolution(error: OmegaConfBaseException, found: Layers) -> str:
    """The message for an interpolation that cannot be resolved, or a value that was never given."""
    key = error.full_key or ""
    where = found.where(key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key} ({found.file(key) or where}): a value is needed; give {key}=..."
    problem = first_line(error) if isinstance(error, InterpolationKeyError) else f"cannot resolve: {first_line(error)}"
    return f"{key} ({where}): {problem}; interpolations are ${{key.from.the.root}} or ${{oc.env:NAME,default}}"


def composition(
    error: Exception, root: str, overrides: Sequence[Override], folders: Sequence[Path], hydra: "Hydra"
) -> str:
    """The message for what Hydra raised while it composed. An error that is not about the configuration is raised
    again."""
    explanation = (
        _missing_choice(error, overrides, folders)
        or _unreadable(error, overrides, folders)
        or _wrong_choice(overrides, folders)
        or _wrong_list(error, root, folders, hydra)
        or _wrong_default(error, folders)
        or _wrong_override(root, overrides, folders, hydra)
        or _wrong_group(error, root, folders, hydra)
        or wrong_kind(error)
    )
    if explanation is None and not isinstance(error, HydraException | OmegaConfBaseException):
        raise error
    return explanation or first_line(error)


def _missing_choice(error: Exception, overrides: Sequence[Override], folders: Sequence[Path]) -> str | None:
    """A file that a group does not have."""
    if not isinstance(error, MissingConfigException) or not error.missing_cfg_file:
        return None
    known, wanted = choices(folders), error.missing_cfg_file
    group = wanted.rpartition("/")[0]
    if not group.startswith("hydra/"):  # Hydra's own groups are in none of the folders
        group = max((name for name in known if wanted.startswith(f"{name}/")), key=len, default=group)
    choice = wanted.removeprefix(f"{group}/")
    asked = any(group == override.key_or_group and choice in _words(override.value()) for override in overrides)
    where = COMMAND_LINE if asked else _chooser(wanted, folders) or "conf"
    if choice.startswith("override "):
        return f"defaults ({where}): {choice}: a colon and a blank come before the choice, - override /GROUP: CHOICE"
    inside, _, last = choice.rpartition("/")
    if last in known.get(inside, {}):
        return f"{inside} ({where}): groups are named from the root here; write: override /{inside}: {last}"
    there = known.get(group) or error.options or ()
    return f"{group}={choice} ({where}): no such choice{nearest_of(choice, there, group)}"


def _chooser(wanted: str, folders: Sequence[Path], *, anew: bool = False) -> str | None:
    """The file whose defaults list makes a choice, ``group/choice``; ``anew``: not with ``override``."""
    for path, content in _contents(folders[::-1]):
        if any(entry == wanted and not (anew and override) for entry, override in _entries(path, content, folders)):
            return shown(path, folders)
    return None


def _entries(path: Path, content: Any, folders: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """What a file's defaults list chooses, ``group/choice`` from the root, and whether with ``override``."""
    home = next(path.relative_to(folder).parent for folder in folders if path.is_relative_to(folder))
    listed = content.get("defaults") if isinstance(content, Mapping) else None
    for entry in listed if isinstance(listed, list) else ():
        for key, value in entry.items() if isinstance(entry, Mapping) else [("", entry)]:
            name = str(key).rpartition(" ")[2].partition("@")[0]
            for word in _words(value):
                # As among paths, a slash at the beginning leads to the root.
                yield (home / name / str(word)).as_posix().lstrip("/"), str(key).startswith("override ")


def _wrong_list(error: Exception, root: str, folders: Sequence[Path], hydra: "Hydra") -> str | None:
    """A file's defaults list that is not a list, or out of order; a list in place of a mapping, or the other way
    round."""
    if isinstance(error, RecursionError):
        for path, content in _contents(folders[::-1]):
            own = next(path.relative_to(folder).with_suffix("") for folder in folders if path.is_relative_to(folder))
            if any(entry == own.as_posix() for entry, _ in _entries(path, content, folders)):
                return f"defaults ({shown(path, folders)}): {own.stem} is the file itself; leave it out"
        return None
    if found := re.match(r"Invalid defaults list in '(.+)', defaults must be a list", str(error)):
        return f"defaults ({_named(found[1], folders)}): a list is expected, - GROUP: CHOICE in each line"
    if str(error).startswith(("Unsupported type in defaults", "Unsupported item value in defaults")):
        for path, content in _contents(folders[::-1]):
            for entry in (isinstance(content, Mapping) and content.get("defaults")) or ():
                values = entry.values() if isinstance(entry, Mapping) else [entry]
                if not all(value is None or set(map(type, _words(value))) <= {str} for value in values):
                    return f"defaults ({shown(path, folders)}): {entry} is no choice; write - GROUP: CHOICE"
    if found := re.match(r"In (.+): Override '.+' is defined before '(.+): (.+)'", str(error)):
        file = _named(found[1], folders)
        return f"{found[2]} ({file}): stands below an override; write: {_override(found[1], found[2])}: {found[3]}"
    if found := re.match(r"Multiple values for ([^.@]+)\. To override a value use '.+: (.+)'", str(error)):
        file = _chooser(f"{found[1]}/{found[2]}", folders, anew=True) or "conf"
        own = file.rpartition("conf/")[2]
        return f"{found[1]} ({file}): is chosen already; write: {_override(own, found[1])}: {found[2]}"
    if (found := re.match(r"In '(.+)': ConfigTypeError raised", str(error))) and (path := _path(found[1], folders)):
        plain = OmegaConf.to_container(hydra.compose_config(root, [], run_mode=RunMode.RUN), resolve=False)
        content = load(path)
        for key in keys(content):
            own, meant = select(content, key), "a list" if isinstance(select(plain, key), list) else "a mapping"
            if isinstance(own, list | dict) and has(plain, key) and isinstance(own, list) != (meant == "a list"):
                return f"{key} ({shown(path, folders)}): expected {meant}, got {own}"
    return None


def _path(name: str, folders: Sequence[Path]) -> Path | None:
    """The file that Hydra calls by its name without the ending."""
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def _named(name: str, folders: Sequence[Path]) -> str:
    path = _path(name, folders)
    return shown(path, folders) if path else name


def _override(name: str, group: str) -> str:
    """How a file overrides the choice of a group: those of its own folder by what comes after it."""
    home, _, inside = group.partition("/")
    return f"override {inside}" if inside and name.startswith(f"{home}/") else f"override /{group}"


def _unreadable(error: Exception, overrides: Sequence[Override], folders: Sequence[Path]) -> str | None:
    """A YAML file with a syntax error, the wrong encoding, or no mapping at the top."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        path = Path(str(error.problem_mark.name))
        return f"{shown(path, folders)}, line {error.problem_mark.line + 1}: {error.problem}; mend the YAML"
    chosen = {str(word) for override in overrides for word in _words(override.value())}
    for path, content in _contents(folders, chosen):
        if not isinstance(content, Mapping):
            problem = content if isinstance(content, Exception) else ValueError("a mapping is expected at the top")
            return f"{shown(path, folders)}: {first_line(problem)}; mend the YAML"
    return None


def _contents(folders: Sequence[Path], names: Collection[str] = ("",)) -> Iterator[tuple[Path, Any]]:
    """Every file, or those of some choices, with its content, or with what was raised when it was read."""
    ends = tuple(f"/{name}.yaml" if name else ".yaml" for name in names)
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        if not path.as_posix().endswith(ends):
            continue
        try:
            yield path, load(path)
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as problem:
            yield path, problem


def _wrong_choice(overrides: Sequence[Override], folders: Sequence[Path]) -> str | None:
    """On the command line: a group that does not exist, a choice that is not a name, a second choice."""
    known = choices(folders)
    for override in overrides:
        group, value = override.key_or_group, override.value()
        if override.is_hydra_override() and "/" in group and value is None:
            return f"{group} ({COMMAND_LINE}): null is no choice; leave the word out"
        if override.is_hydra_override() or override.is_delete():
            continue
        if "/" in group and group not in known:
            return f"{group} ({COMMAND_LINE}): no such group{nearest_of(group, known)}"
        if group in known and not all(isinstance(word, str) for word in _words(value)):
            if value is None and group.startswith(OPTIONAL_GROUPS):
                where = f"@{override.package}" if override.package else ""
                return f"{group}{where} ({COMMAND_LINE}): to choose none, write ~{group}{where}"
            text = "null" if value is None else str(value)
            return f"{group} ({COMMAND_LINE}): {text} is no choice{nearest_of(text, known[group])}"
        if group in known and override.is_add():
            return f"{group} ({COMMAND_LINE}): is chosen already; write it without the +"
    return None


def _wrong_default(error: Exception, folders: Sequence[Path]) -> str | None:
    """In a file's defaults list: ``override`` of a group that the composition does not have."""
    found = re.match(r"In '(?P<file>[^']+)': Could not override '(?P<group>[^'@]+)(?P<package>@[^']+)?'", str(error))
    if found is None:
        return None
    where, group, known = _named(found["file"], folders), found["group"], choices(folders)
    if group in known:  # a package that nobody wrote comes from the place of the file
        if found["package"]:
            written = _override(found["file"], group)
            advice = (
                GLOBAL if written.endswith(f"/{group}") else f"in a file of {group.partition('/')[0]}/ write: {written}"
            )
            return f"{group} ({where}): nothing to override here; {advice}"
        return f"{group} ({where}): nothing to override here; {no_such_part(group)}"
    inside = group.removeprefix(f"{found['file'].partition('/')[0]}/")
    if inside in known:
        return f"{inside} ({where}): groups are named from the root here; write: override /{inside}"
    return f"{group} ({where}): no such group{nearest_of(group, known)}"


def _wrong_override(root: str, overrides: Sequence[Override], folders: Sequence[Path], hydra: "Hydra") -> str | None:
    """The override that cannot be applied: compose without those of single keys and look for each key."""
    groups = choices(folders)

    def is_key(override: Override) -> bool:
        name = override.key_or_group
        return name not in groups and "/" not in name and name != "hydra.searchpath"

    lines = [override.input_line or "" for override in overrides if not is_key(override)]
    try:
        plain: Any = OmegaConf.to_container(hydra.compose_config(root, lines, run_mode=RunMode.RUN), resolve=False)
    except (HydraException, OmegaConfBaseException, OSError, ValueError):
        return None
    found = read_layers(hydra, root, lines, folders)
    for override in filter(is_key, overrides):
        key, there = override.key_or_group, has(plain, override.key_or_group)
        if override.is_add() and there:
            return f"{key} ({COMMAND_LINE}): is there already; write it without the +"
        if override.is_delete() and there and select(plain, key) is None:
            return f"{key} ({COMMAND_LINE}): is null as it is, and Hydra deletes no null; leave the word out"
        if override.is_add() and has(plain, parent(key)) and select(plain, parent(key)) is None:
            return f"{key} ({COMMAND_LINE}): {parent(key)} is null; write {parent(key)}={{{leaf(key)}: ...}}"
        if there or override.is_add() or override.is_force_add():
            continue
        choice = str(override.value())
        group = next((name for name in groups if name.endswith(f"/{key}") and choice in groups[name]), None)
        if group is not None:
            return f"{key} ({COMMAND_LINE}): unknown key{did_you_mean(f'{group}={choice}')}"
        neighbours = [name for name in keys(plain) if parent(name) == parent(key) and leaf(name) not in _NOT_MEANT]
        # A clear slip is answered at once; for the arguments that no file spells out, code must be imported.
        slip = nearest(leaf(key), map(leaf, neighbours), cutoff=0.8)
        arguments = [] if slip else arguments_at(plain, parent(key))
        if key in arguments:
            return f"{key} ({COMMAND_LINE}): stands in no file; add it with +{override.input_line}"
        problem = "nothing to delete" if override.is_delete() else "unknown key"
        offered = groups if root == "train" else {}
        if parent(key).replace(".", "/") in offered and not has(plain, parent(key)):
            return f"{key} ({COMMAND_LINE}): {problem}; {no_such_part(key)}"
        guess = found.meant(nearest_key(key, [*neighbours, *arguments], plain, offered))
        known = ", ".join(map(leaf, neighbours)) if has(plain, parent(key)) or not parent(key) else ""
        advice = f"known here: {known}" if known else "the option --cfg job prints the keys"
        return f"{key} ({COMMAND_LINE}): {problem}{guess or f'; {advice}'}"
    return None


def _wrong_group(error: Exception, root: str, folders: Sequence[Path], hydra: "Hydra") -> str | None:
    """On the command line: a group that the composition does not have."""
    found = re.match(r"Could not override '(?P<group>[^'@]+)", str(error))
    if found is None:
        return None
    group, known = found["group"], choices(folders)
    if group not in known:
        return f"{group} ({COMMAND_LINE}): no such group{nearest_of(group, known)}"
    advice = f"; {no_such_part(group)}"
    if root != "train":
        own = [str(key) for key in hydra.compose_config(root, [], run_mode=RunMode.RUN) if key not in _NOT_MEANT]
        advice = did_you_mean(nearest(group.rpartition("/")[2], own), f"known here: {', '.join(own)}")
    return f"{group} ({COMMAND_LINE}): nothing to override here{advice}"


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
