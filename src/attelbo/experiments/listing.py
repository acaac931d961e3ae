"""What can be chosen: the configuration folders, their groups, and one line on each choice.

Reads file names and first lines only, so ``attelbo list`` answers without Hydra and without torch.
"""

import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from attelbo.errors import ConfigError, did_you_mean, nearest

NESTED = ("data", "hydra", "model")
"""Groups whose folders are groups themselves; elsewhere a folder is the first half of a choice's name."""

NO_GROUPS = ("paper",)
"""Folders whose files are not choices."""

_MANY = 30
"""Choices that are not all named in an error message."""


def package_folder() -> Path:
    """attelbo's own ``conf/``: inside the installed package, or beside ``src/`` in a checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


def config_folders(extra: Path | None = None) -> list[Path]:
    """The folders of choices: attelbo's own, ``extra`` (``--config-dir``), and ``conf/`` in the working folder.

    Raises:
        ConfigError: ``extra`` is not a folder.
    """
    if extra is not None and not extra.is_dir():
        raise ConfigError(f"--config-dir {extra}: no such folder")
    folders = [package_folder()]
    for folder in (extra, Path("conf")):
        if folder is not None and folder.is_dir() and not any(folder.samefile(known) for known in folders):
            folders.append(folder.absolute())
    return folders


def choices(folders: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Group -> choice -> file, groups and choices in alphabetical order. The first folder that has a name wins.

    A file whose name begins with an underscore is included by others and not a choice.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path, _, names in os.walk(folder):  # in half the time of rglob
            inside = Path(path).relative_to(folder).parts
            if not inside or inside[0] in NO_GROUPS:
                continue
            # conf/model/encoder/mlp.yaml: model/encoder=mlp, but conf/experiment/mnist/vae.yaml: experiment=mnist/vae
            depth = len(inside) if inside[0] in NESTED else 1
            group = found.setdefault("/".join(inside[:depth]), {})
            for name in names:
                if name.endswith(".yaml") and not name.startswith("_"):
                    choice = "/".join([*inside[depth:], name.removesuffix(".yaml")])
                    group.setdefault(choice, Path(path, name))
    return {group: dict(sorted(found[group].items())) for group in sorted(found) if found[group]}


def description(file: Path) -> str:
    """The file's first comment: there every configuration file says what it is, after ``# @package`` if it has one."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in map(str.strip, lines):
            if not line.startswith("#"):
                break
            if not line.lstrip("# ").startswith("@"):
                return line.lstrip("# ")
    return ""


def listing(folders: Sequence[Path], group: str | None = None, width: int | None = None) -> str:
    """The table that ``attelbo list [group]`` prints: all groups, or the choices of one.

    Args:
        folders: :func:`config_folders`.
        group: one of the groups, or the first part of some; None: all.
        width: columns of the terminal, within which the second column is wrapped; None: a line for each row.

    Raises:
        ConfigError: no such group.
    """
    known = choices(folders)
    if group is None:
        return _table(((name, ", ".join(files)) for name, files in known.items()), width)
    group = group.strip("/")
    inside = {name: files for name, files in known.items() if f"{name}/".startswith(f"{group}/")}
    if not inside:
        raise ConfigError(f"list {group}: no such group{nearest_of(group, known)}")
    rows = ((f"{name}={choice}", description(file)) for name, files in inside.items() for choice, file in files.items())
    return _table(rows, width)


def nearest_in_parts(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that has a part like the word: ``autoregressive_transformer`` for ``transformer``."""
    parts = {part: name for name in reversed(list(candidates)) for part in re.split("[/_]", name)}
    guess = nearest(word, parts, cutoff=0.8)
    return parts[guess] if guess else None


def no_such_part(name: str) -> str:
    """Advice where a group or a key belongs to a part that the chosen model or data do not have, but others do."""
    owner, other = ("data have", "other data") if name.startswith("data") else ("model has", "another model")
    return f"the chosen {owner} no such part: {other}, another experiment=..., or none"


def nearest_of(word: str, candidates: Iterable[str], group: str | None = None) -> str:
    """The tail of an error message: ``; did you mean X? (there are X, Y, Z)``; of many choices of a group, how they are
    listed."""
    candidates = list(candidates)
    same_name = (name for name in candidates if "/" in word and Path(name).name == Path(word).name)
    guess = next(same_name, None) or nearest(word, candidates) or nearest_in_parts(word, candidates)
    known = f"there are {', '.join(candidates) or 'none'}"
    if group is not None and len(candidates) > _MANY:
        known = f"attelbo list {group} has all {len(candidates)}"
    return f"{did_you_mean(guess)} ({known})" if guess else f"; {known}"


def _table(rows: Iterable[tuple[str, str]], width: int | None) -> str:
    rows = list(rows)
    indent = max((len(name) for name, _ in rows), default=0) + 2
    room = 0 if width is None else width - indent
    lines: list[str] = []
    for name, text in rows:
        # In a window too narrow for two columns the terminal breaks lines itself.
        parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) if room >= 40 else [text]
        lines += (f"{'' if at else name:<{indent}}{part}".rstrip() for at, part in enumerate(parts or [""]))
    return "\n".join(lines)
