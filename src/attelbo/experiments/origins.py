"""Which file of a composition, or the command line, set a key; and dotted names in plain containers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from attelbo.building import arguments_of, locate
from attelbo.errors import ConfigError, did_you_mean, nearest, one_line
from attelbo.experiments.grammar import Grammar
from attelbo.experiments.listing import choices

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

COMMAND_LINE = "command line"

_ABSENT = object()

_ELSEWHERE: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("beta", "kl_weight", "kld_weight", "kl_coefficient"), ("model.objective.weight",)),
    **dict.fromkeys(("z_dim", "n_latents", "latent_size", "latents"), ("model.latent_dim",)),
    **dict.fromkeys(("hidden", "hidden_dim", "hidden_dims"), ("model.encoder.hidden", "model.encoder.channels")),
    **dict.fromkeys(("d_model", "n_embd", "embed_dim"), ("model.dim",)),
    **dict.fromkeys(("learning_rate", "base_lr"), ("optimizer.lr",)),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs"), ("trainer.max_epochs",)),
    **dict.fromkeys(("gpus", "n_gpus"), ("trainer.devices",)),
    **dict.fromkeys(("grad_clip", "gradient_clip_val", "max_grad_norm"), ("trainer.clip_norm",)),
    **dict.fromkeys(("bs", "batch"), ("data.batch_size",)),
}
"""What other projects call a key -> the keys that it may be here, the first one that there is."""


@dataclass(frozen=True)
class Layers:
    """The files of a composition in the order in which they were merged, and the overrides on top."""

    files: list[tuple[str, str, Any]]
    """Shown name, package (the dotted node that the file fills), content."""
    overrides: Sequence[Override]
    """Those of single keys; the choices of groups are among the files."""
    groups: Mapping[str, Any]
    """Every group there is."""

    def where(self, key: str) -> str:
        """Where a key was set last: the command line or a file; ``conf`` if that is not known."""
        return COMMAND_LINE if self.on_command_line(key) else self.file(key) or "conf"

    def on_command_line(self, key: str) -> bool:
        return any(_covers(override, key) for override in self.overrides)

    def file(self, key: str) -> str | None:
        """The last file that sets a key."""
        for name, package, content in reversed(self.files):
            inside = key.removeprefix(f"{package}.") if package else key
            if package == key or ((not package or inside != key) and has(content, inside)):
                return name
        return None

    def meant(self, key: str | None) -> str:
        """The tail of a message: the key that was probably meant, and the file where it stands."""
        if key is None:
            return ""
        owner = self.file(key) or self.file(f"{parent(key)}._target_")
        return did_you_mean(key) + (f" [{owner}]" if owner else "")


def read_layers(hydra: "Hydra", root: str, overrides: Sequence[str], folders: Sequence[Path]) -> Layers:
    """Read the files of a composition again, in its order."""
    found = hydra.config_loader.compute_defaults_list(root, list(overrides), RunMode.RUN)
    files = []
    for default in found.defaults:
        path = next((p for f in folders if (p := f / f"{default.config_path}.yaml").is_file()), None)
        if path is not None:
            files.append((shown(path, folders), default.package or "", load(path)))
    groups = choices(folders)
    parsed = Grammar.create().parse_overrides(list(overrides))
    return Layers(files, [override for override in parsed if override.key_or_group not in groups], groups)


def load(path: Path) -> Any:
    """The content of a file, cached and not to be changed: one message may need a file three times."""
    state = path.stat()
    return _load(path, state.st_mtime_ns, state.st_size)


@lru_cache(1024)
def _load(path: Path, *state: int) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except RecursionError as error:
        raise YAMLError("it is nested too deeply") from error


def read_config_file(path: Path, folders: Sequence[Path]) -> Any:
    """The content of a configuration file that Hydra does not read, such as those of sweeps and papers.

    Raises:
        ConfigError: it is not valid YAML, or has a key twice.
    """
    try:
        return load(path)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{shown(path, folders)}{line}: {error.problem}; mend the YAML") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{shown(path, folders)}: {one_line(error)}; mend the YAML") from error


def shown(path: Path, folders: Sequence[Path]) -> str:
    """``conf/model/vae.yaml`` for a file of attelbo's own; a user's file relative to the working folder."""
    if path.is_relative_to(folders[0]):
        return (Path("conf") / path.relative_to(folders[0])).as_posix()
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted names inside nested mappings."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from keys(value, f"{prefix}{name}.")


def select(node: Any, key: str) -> Any:
    """The value at a dotted name (``a.b[0].c``), or None."""
    found = _select(node, key)
    return None if found is _ABSENT else found


def has(node: Any, key: str) -> bool:
    """Whether there is a value at a dotted name, even null."""
    return _select(node, key) is not _ABSENT


def parent(key: str) -> str:
    """``a.b`` of ``a.b.c``."""
    return key.rpartition(".")[0]


def leaf(key: str) -> str:
    """``c`` of ``a.b.c``."""
    return key.rpartition(".")[2]


def _select(node: Any, key: str) -> Any:
    for name in key.replace("[", ".").replace("]", "").split(".") if key else ():
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        else:
            return _ABSENT
    return node


def _covers(override: Override, key: str) -> bool:
    """Whether an override sets the key: by its own name, or inside a mapping or list given as the value."""
    own, value = override.key_or_group, override.value()
    if own == key or key.startswith(f"{own}["):
        return True
    return isinstance(value, Mapping) and key.startswith(f"{own}.") and has(value, key[len(own) + 1 :])


def nearest_key(key: str, siblings: Sequence[str], plain: Mapping[str, Any], groups: Mapping[str, Any]) -> str | None:
    """The key that was probably meant: ours for the name that other projects give it, else a similar one in the same
    node, else one elsewhere with the same name or ending, else any similar one."""
    known = () if key.startswith("hydra.") else _ELSEWHERE.get(leaf(key), ())
    if (called := next((name for name in known if has(plain, name)), None)) is not None:
        return called
    if (sibling := nearest(leaf(key), map(leaf, siblings))) is not None:
        return ".".join(filter(None, (parent(key), sibling)))
    own = {name: node for name, node in plain.items() if (name == "hydra") == key.startswith("hydra.")}
    every = [name for name in dict.fromkeys([*keys(own), *groups]) if leaf(name) != "_target_"]
    if has(plain, parent(key)) and isinstance(select(plain, parent(key)), Mapping):
        every.sort(key=lambda name: name.startswith("evaluation."))  # a batch_size is that of the training
        return next((name for sign in "._" for name in every if f".{name}".endswith(sign + leaf(key))), None)
    return nearest(key, every)


def arguments_at(plain: Mapping[str, Any], node: str) -> list[str]:
    """The dotted names of all arguments of the part at a node, also of those that no file spells out."""
    part = select(plain, node)
    if not isinstance(part, Mapping) or not isinstance(part.get("_target_"), str):
        return []
    try:
        return [f"{node}.{name}" for name in arguments_of(locate(part["_target_"]))]
    except ConfigError:
        return []
