"""Completion of command lines by the shell: ``source <(attelbo completion bash)``.

The script that a shell reads asks ``attelbo completion words LINE`` at each press of the key, where LINE is what
stands before the cursor. The answer is what may stand in place of its last word, one candidate a line. Commands,
options, groups and choices are read from names of files, in some 50 ms; keys with a dot need a composed configuration,
about a second. Where there are no candidates, as after ``run=``, the shell completes names of files.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from attelbo.cli.parsing import CALLS, print_text
from attelbo.cli.usage import COMPARE, HELP, REPRODUCE, WANDB, help_of, root_of
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.listing import choices, config_folders, nearest_of, package_folder

# Bash breaks words at the characters of COMP_WORDBREAKS too, and replaces only what follows the last of them.
BASH = """\
_attelbo() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$'\\n' word kept
    COMPREPLY=($(attelbo completion words "$line" 2>/dev/null))
    word=${line##* }
    kept=${word%"${word##*["$COMP_WORDBREAKS"]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} == *[=./] ]] || compopt +o nospace
}
complete -o default -o nospace -F _attelbo attelbo
"""

ZSH = """\
#compdef attelbo
_attelbo() {
    local -a found
    found=(${(f)"$(attelbo completion words "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    if (( $#found )); then
        compadd -Q -S ' ' -- ${found:#*[=./]}
        compadd -Q -S '' -- ${(M)found:#*[=./]}
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _attelbo attelbo
"""

FISH = """\
complete -c attelbo -a '(attelbo completion words (commandline -cp | string collect) 2>/dev/null)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

HELP_OF_COMPLETION = """\
attelbo completion   bash|zsh|fish           what the shell reads to complete commands, groups, choices and keys:

  source <(attelbo completion bash)          in ~/.bashrc; likewise zsh in ~/.zshrc
  attelbo completion fish | source           in ~/.config/fish/config.fish
"""


def completion(words: Sequence[str]) -> int:
    """``attelbo completion``."""
    kind, *rest = words or ("--help",)
    if kind in ("-h", "--help"):
        return print_text(HELP_OF_COMPLETION)
    if kind == "words":
        return print_text("".join(f"{word}\n" for word in candidates(" ".join(rest))))
    if kind not in SCRIPTS or rest:
        raise ConfigError(f"completion {' '.join(words)}: no such shell{nearest_of(kind, SCRIPTS)}")
    return print_text(SCRIPTS[kind])


def candidates(line: str) -> list[str]:
    """What may stand in place of the last word of a line that begins with ``attelbo``; a line that ends in a space has
    an empty last word."""
    _, *given, word = words if len(words := _split(line)) > 1 else (*words, "")
    if not given:
        return _beginning(word, [*_commands(), "--help", "--version"])
    command, *given = given
    if word.startswith("-"):
        return _beginning(word, re.findall(r"--?[a-z][\w-]*", _options(command)))
    if command == "list":
        return _beginning(word, choices(_folders(given)))
    if command in ("train", "check", *CALLS):
        return _of_root(command, given, word)
    known = _first_words(command)
    if not {*known} & {*given}:
        return _beginning(word, known)
    return _of_root("train", given, word) if command == "reproduce" or "dry" in given else []


def _split(line: str) -> list[str]:
    """The words of a line, the last one perhaps unfinished."""
    for end in ("", "'", '"'):
        try:
            return [*shlex.split(line + end), *([""] if line.endswith(" ") and not end else [])]
        except ValueError:  # a quotation that is not closed
            continue
    return line.split(" ")


def _beginning(word: str, known: Iterable[str]) -> list[str]:
    return [each for each in dict.fromkeys(known) if each.startswith(word)]


def _commands() -> list[str]:
    return re.findall(r"^  attelbo ([\w-]+)", HELP, re.MULTILINE)


def _folders(given: Sequence[str]) -> list[Path]:
    """The folders of choices, with that of ``--config-dir``."""
    named = [after for option, after in pairwise(given) if option in ("--config-dir", "-cd")]
    return config_folders(*map(Path, named[-1:]))


def _options(command: str) -> str:
    """The help of a command's options."""
    own: dict[str, Callable[[], str]] = {
        "compare": lambda: COMPARE,
        "reproduce": lambda: REPRODUCE,
        "wandb": lambda: WANDB,
        "sweep": lambda: help_of("check"),
    }
    text = own.get(command, lambda: help_of(command))()
    return "\n".join(re.findall(r"^  (--?\w.*?)  ", text, re.MULTILINE))


def _first_words(command: str) -> Sequence[str]:
    """One of these a command must have before anything else."""
    if command == "reproduce":
        from attelbo.experiments.papers.specification import papers

        return list(papers(None))
    return {"sweep": ("dry", "status"), "wandb": ("sync", "report"), "completion": tuple(SCRIPTS)}.get(command, ())


def _of_root(command: str, given: Sequence[str], word: str) -> list[str]:
    """Groups, choices, keys and values of a command that Hydra composes."""
    sign = word[: len(word) - len(word.lstrip("+~"))]
    key, equals, value = word.removeprefix(sign).partition("=")
    folders = _folders(given)
    groups = choices(folders) if command in ("train", "check") else {}
    groups.pop("hydra", None)  # its file is always the same
    if command == "fit-prior":
        groups["prior"] = choices(folders)["model/prior"]
    if equals and (group := key.partition("@")[0]) in groups:
        head = value[: value.rfind(",") + 1]  # those before it are swept too
        return _beginning(word, (f"{sign}{key}={head}{choice}" for choice in groups[group]))
    if "." not in key and not equals:
        known = [*(f"{group}=" for group in groups), *_keys_of_file(root_of(command))]
        return _beginning(word, (f"{sign}{each}" for each in known))
    config = _composed(root_of(command), given, folders)
    if equals:
        return _beginning(word, (f"{sign}{key}={each}" for each in _values(config, key.split("."))))
    parent, _, _ = key.rpartition(".")
    node = _select(config, parent.split("."))
    children = node if isinstance(node, Mapping) else {}
    own = (_as_key(name, children[name]) for name in children if name != "_target_")
    return _beginning(word, (f"{sign}{parent}.{each}" for each in own))


def _as_key(name: object, value: object) -> str:
    return f"{name}." if isinstance(value, Mapping) and value else f"{name}="


def _keys_of_file(root: str) -> list[str]:
    """The first parts of a root file's keys: its own, and its groups."""
    import yaml

    content = yaml.safe_load((package_folder() / f"{root}.yaml").read_text(encoding="utf-8"))
    groups = [name for entry in content.pop("defaults") if isinstance(entry, dict) for name in entry]
    own = [_as_key(name, value) for name, value in content.items() if name != "_target_"]
    return [*own, *(f"{name}." for name in groups if name not in ("experiment", "debug"))]


def _composed(root: str, given: Sequence[str], folders: Sequence[Path]) -> Mapping[str, Any]:
    """What Hydra composes of the words so far, or nothing where they are wrong."""
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from attelbo.experiments.composing import session
    from attelbo.experiments.configuration import parse, with_folders

    words = [word for word in given if "=" in word and not word.startswith(("zip", "sweep"))]
    words = [f"model/prior@{word}" if word.startswith("prior=") else word for word in words]
    try:
        chosen = [each.input_line or "" for each in parse(words) if not each.is_sweep_override()]
        with session() as hydra:
            full = hydra.compose_config(root, with_folders(chosen, folders), run_mode=RunMode.RUN)
        plain = OmegaConf.to_container(full, resolve=False)
    except (UserError, HydraException, OmegaConfBaseException, ValueError, OSError):
        return {}
    return plain if isinstance(plain, Mapping) else {}


def _select(config: Any, path: Sequence[str]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _values(config: Mapping[str, Any], path: Sequence[str]) -> list[str]:
    """The value that a key has, and the other one of two."""
    value = _select(config, path)
    if isinstance(value, bool):
        return ["true", "false"]
    plain = isinstance(value, int | float | str) and not str(value).startswith(("${", "???"))
    return [str(value)] if plain else []
