"""One helpful line for everything that can go wrong in a configuration.

Hydra and OmegaConf say what they could not do; here the composition is looked at again to say where it
was asked for (which file, or the command line) and what was probably meant. Runs only when something is
wrong, so it may take its time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from attelbo.building import locate
from attelbo.errors import ConfigError
from attelbo.experiments.checking import Fault, parameters_of
from attelbo.experiments.listing import choices, nearest, nearest_of

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layers:
    """The files of a composition in the order in which they were merged, and the overrides on top."""

    files: list[tuple[str, str, Any]]
    """Shown name, package (the dotted node that the file fills), content."""
    overrides: Sequence[Override]

    def where(self, key: str) -> str:
        """Who set a key last: the command line or a file; ``conf`` if nobody can be named."""
        return COMMAND_LINE if self.on_command_line(key) else self.file(key) or "conf"

    def on_command_line(self, key: str) -> bool:
        return any(_covers(override, key) for override in self.overrides)

    def file(self, key: str) -> str | None:
        """The last file that sets a key."""
        for name, package, content in reversed(self.files):
            inside = key.removeprefix(f"{package}.") if package else key
            if (not package or inside != key) and _has(content, inside):
                return name
        return None


def layers(hydra: "Hydra", root: str, overrides: Sequence[str], folders: Sequence[Path]) -> Layers:
    """Read the files of a composition again; those that cannot be read are left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    found = hydra.config_loader.compute_defaults_list(root, list(overrides), RunMode.RUN)
    files = []
    for default in found.defaults:
        path = next((p for f in folders if (p := f / f"{default.config_path}.yaml").is_file()), None)
        if path is not None:
            files.append((shown(path, folders), default.package or "", OmegaConf.to_container(OmegaConf.load(path))))
    return Layers(files, parsed)


def shown(path: Path, folders: Sequence[Path]) -> str:
    """``conf/model/vae.yaml`` for a file of attelbo's own; a user's file relative to the working folder."""
    if path.is_relative_to(folders[0]):
        return (Path("conf") / path.relative_to(folders[0])).as_posix()
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()


def fault(fault: Fault, found: Layers) -> str:
    """What ``check`` found."""
    hint = ""
    if fault.meant is not None:
        owner = found.file(fault.meant) or found.file(_parent(fault.meant) + "._target_")
        hint = f"; did you mean {fault.meant}?" + (f" [{owner}]" if owner else "")
    return f"{fault.key} ({found.where(fault.key)}): {fault.problem}{hint}"


def resolution(error: OmegaConfBaseException, found: Layers) -> str:
    """An interpolation that leads nowhere, or a value that was never given."""
    key = error.full_key or ""
    where = found.where(key)
    if isinstance(error, MissingMandatoryValue):
        return f"{key} ({found.file(key) or where}): a value is needed; give {key}=..."
    remedy = "; interpolations are ${key.from.the.root} or ${oc.env:NAME,default}"
    if isinstance(error, InterpolationKeyError):
        return f"{key} ({where}): {first_line(error)}{remedy}"
    return f"{key} ({where}): cannot be resolved: {first_line(error)}{remedy}"


def composition(
    error: Exception, root: str, overrides: Sequence[Override], folders: Sequence[Path], hydra: "Hydra"
) -> str:
    """What Hydra raised while it composed."""
    for explanation in (
        _unreadable(error, folders),
        _missing_choice(error, overrides, folders),
        _unknown_group(overrides, folders),
        _wrong_override(root, overrides, folders, hydra),
    ):
        if explanation is not None:
            return explanation
    if not isinstance(error, HydraException | OmegaConfBaseException):
        raise error
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line that says something, without the name of the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines and error.__cause__ is not None:
        return first_line(error.__cause__)
    return lines[0] if lines else type(error).__name__


def _unreadable(error: Exception, folders: Sequence[Path]) -> str | None:
    """A YAML file with a syntax error, the wrong encoding, or no mapping at the top."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        path = Path(str(error.problem_mark.name))
        return f"{shown(path, folders)}, line {error.problem_mark.line + 1}: {error.problem}; mend the YAML"
    if isinstance(error, HydraException | OmegaConfBaseException) and not isinstance(error, GrammarParseError):
        return None
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        try:
            content = OmegaConf.to_container(OmegaConf.load(path))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as problem:
            return f"{shown(path, folders)}: {first_line(problem)}; mend the YAML"
        if not isinstance(content, Mapping):
            return f"{shown(path, folders)}: a mapping (key: value) is expected at the top; mend the YAML"
    return None


def _missing_choice(error: Exception, overrides: Sequence[Override], folders: Sequence[Path]) -> str | None:
    if not isinstance(error, MissingConfigException) or not error.missing_cfg_file:
        return None
    group, _, choice = error.missing_cfg_file.rpartition("/")
    known = error.options or list(choices(folders).get(group, {}))
    asked = any(group == override.key_or_group and choice in _words(override.value()) for override in overrides)
    # Hydra begins with "In 'experiment/mine': Could not find ..." when a file's defaults list asked.
    asking = str(error).split("'")[1] if str(error).startswith("In '") else None
    where = COMMAND_LINE if asked or asking is None else f"conf/{asking}.yaml"
    return f"{group}={choice} ({where}): no such choice{nearest_of(choice, known)}"


def _unknown_group(overrides: Sequence[Override], folders: Sequence[Path]) -> str | None:
    """A group that does not exist, a group that nobody composes, or a choice that is not a name."""
    known = choices(folders)
    for override in overrides:
        group, value = override.key_or_group, override.value()
        if override.is_hydra_override():
            continue
        if "/" in group and group not in known:
            return f"{group} ({COMMAND_LINE}): no such group{nearest_of(group, known)}"
        if group in known and not override.is_delete() and not all(isinstance(word, str) for word in _words(value)):
            return f"{group} ({COMMAND_LINE}): {value!r} is no choice{nearest_of(str(value), known[group])}"
    return None


def _wrong_override(root: str, overrides: Sequence[Override], folders: Sequence[Path], hydra: "Hydra") -> str | None:
    """The override that cannot be applied: compose without the dotted ones and look for each key."""
    groups = choices(folders)
    base = [o for o in overrides if o.key_or_group in groups or o.is_hydra_override()]
    lines = [override.input_line or "" for override in base]
    try:
        full = hydra.compose_config(root, lines, run_mode=RunMode.RUN)
    except (HydraException, OmegaConfBaseException, OSError, ValueError):
        return None
    plain = OmegaConf.to_container(full, resolve=False)
    assert isinstance(plain, dict)
    hydra_node = plain.pop("hydra", None)
    found = layers(hydra, root, lines, folders)
    for override in overrides:
        key = override.key_or_group
        there = _has({**plain, "hydra": hydra_node}, key)
        if override in base and not key.startswith("hydra."):
            continue
        if override.is_add() and there:
            return f"{key} ({COMMAND_LINE}): is there already; write it without the +"
        if there or override.is_add() or override.is_force_add():
            continue
        if key in _arguments(plain, _parent(key)):
            return f"{key} ({COMMAND_LINE}): stands in no file; add it with +{override.input_line}"
        guess = _guess(key, plain, groups)
        owner = found.file(guess) if guess else None
        hint = (
            f"; did you mean {guess}?" + (f" [{owner}]" if owner else "") if guess else "; `--cfg job` shows the keys"
        )
        return f"{key} ({COMMAND_LINE}): {'nothing to delete' if override.is_delete() else 'unknown key'}{hint}"
    return None


def _guess(key: str, plain: Mapping[str, Any], groups: Mapping[str, Any]) -> str | None:
    """The key that was meant: a neighbour in the same node, the same name elsewhere, or anything like it."""
    every = list(dict.fromkeys([*_keys(plain), *groups]))
    siblings = [*(k for k in every if _parent(k) == _parent(key)), *_arguments(plain, _parent(key))]
    same_name = [k for k in every if k.rpartition(".")[2] == key.rpartition(".")[2]]
    return nearest(key, siblings) or (same_name[0] if same_name else None) or nearest(key, every)


def _arguments(plain: Mapping[str, Any], node: str) -> list[str]:
    """The dotted names of all arguments of the part at a node, also of those that no file spells out."""
    part = _select(plain, node)
    if not isinstance(part, Mapping) or not isinstance(part.get("_target_"), str):
        return []
    try:
        return [f"{node}.{name}" for name in parameters_of(locate(part["_target_"]))]
    except ConfigError:
        return []


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")


_ABSENT = object()


def _select(node: Any, key: str) -> Any:
    for name in key.replace("[", ".").replace("]", "").split(".") if key else ():
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        else:
            return _ABSENT
    return node


def _has(node: Any, key: str) -> bool:
    return _select(node, key) is not _ABSENT


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _covers(override: Override, key: str) -> bool:
    """Whether an override sets the key: by its own name, or inside a mapping or list given as the value."""
    own, value = override.key_or_group, override.value()
    if own == key or key.startswith(f"{own}["):
        return True
    return isinstance(value, Mapping) and key.startswith(f"{own}.") and _has(value, key[len(own) + 1 :])


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
