"""Parsing of the command line, by argparse, and what a command prints to standard output and error."""

import re
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from attelbo.errors import ConfigError, UserError, did_you_mean, nearest, one_line, reachable
from attelbo.experiments.quoting import quoted, with_letters

CALLS = (
    "evaluate",
    "sample",
    "translate",
    "predict",
    "reconstruct",
    "interpolate",
    "traverse",
    "embed",
    "fit-prior",
    "rerun",
)
"""Commands whose root file is itself the call: its ``_target_`` is the function that does the work."""

LITERAL = ("prompt=", "text=", "start=", "end=")
"""Words of these commands whose value is taken literally: no character in it is part of Hydra's grammar."""


class Parser(ArgumentParser):
    """Parses the options of a command; a mistake in them is an error of one line."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"attelbo {command}", add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}; see {self.prog} --help{self._meant(message)}")

    def refuse_without_dashes(self, words: Iterable[str]) -> None:
        """Raise ConfigError at a word that is no file and that would be an option, or the value of one, with dashes."""
        for word in (word for word in words if not Path(word).exists()):
            name, _, value = word.partition("=")
            for option, action in self._option_string_actions.items():
                if option == f"--{name}":
                    self.error(f"{word}: options are written with dashes: {option} {value}".rstrip())
                if word in (action.choices or ()):
                    self.error(f"{word}: options are written with dashes: {option} {word}")

    def _meant(self, message: str) -> str:
        slip = re.search(r"unrecognized arguments: (-\S+)|invalid choice: '([^']*)'", message)
        known = [*self._option_string_actions, *(str(c) for action in self._actions for c in action.choices or ())]
        takes_values = any(action.dest == "words" for action in self._actions)
        # Where keys are given too, only what is close to an option was meant as one: --model is not --help.
        guess = slip and nearest(slip[1] or slip[2], known, cutoff=0.7 if takes_values else 0.6)
        if guess:
            return did_you_mean(guess)
        name = slip and slip[1] and re.match(r"-+(\w{2,})", slip[1])
        return f"; keys are written without dashes: {name[1]}=..." if takes_values and name else ""


class Once(Action):
    """An option that, unlike those beside it, is not collected: given a second time it is refused."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"argument {option_string}: it is given once")
        setattr(namespace, self.dest, values)


def parse(command: str, words: Sequence[str]) -> Namespace:
    """The options of a command that Hydra composes, and its words.

    Raises:
        ConfigError: an option that it does not have.
    """
    parser = Parser(command)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("words", nargs="*")
    if command != "list":
        parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
        parser.add_argument("--resolve", action="store_true")
    if command in ("train", "check"):
        parser.add_argument("-m", "--multirun", action="store_true")
    options = parser.parse_intermixed_args(words)
    if getattr(options, "cfg", None) and getattr(options, "multirun", False):
        parser.error("--cfg prints one configuration: leave out -m")
    if command == "fit-prior":  # its prior= chooses from the group model/prior
        options.words = [f"model/prior@{word}" if word.startswith("prior=") else word for word in options.words]
    if command in CALLS:
        _refuse_second_name(options.words)
        options.words = [_literal(word) if word.startswith(LITERAL) else _of_run(word) for word in options.words]
    options.words = list(map(with_letters, options.words))
    options.command = command
    return options


def _of_run(word: str) -> str:
    """A word that is not an assignment names the run; of a folder that exists no character means anything to Hydra."""
    word = f"run={word}" if _is_bare(word) else word
    return _literal(word) if word.startswith("run=") and _is_folder(word.removeprefix("run=")) else word


def _is_bare(word: str) -> bool:
    return _is_folder(word) or ("=" not in word and not word.startswith("~"))


def _is_folder(name: str) -> bool:
    with reachable():
        return bool(name) and Path(name).is_dir()


def _refuse_second_name(words: Sequence[str]) -> None:
    named = [word for word in words if _is_bare(word) or word.startswith("run=")]
    if len(named) > 1 and any(map(_is_bare, named)):
        second = next(filter(_is_bare, named[::-1]))
        raise ConfigError(f"'{second}' (command line): not of the form key=value, and a run is named already")


def _literal(word: str) -> str:
    """``key='value'``, escaped for Hydra and for OmegaConf (interpolations); what is in quotes stays."""
    key, _, value = word.partition("=")
    if len(value) > 1 and value[0] == value[-1] in "'\"":
        return word
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return f"{key}={quoted(value)}"


def print_error(error: UserError) -> int:
    """Print a mistake of the user's in one line; the exit code for it."""
    sys.stderr.write(f"error: {one_line(error)}\n")
    return 2


def print_text(text: str) -> int:
    """Print; the exit code of success."""
    sys.stdout.write(text)
    return 0
