"""Hydra's grammar of the command line, with a cache, and what is said of words that do not follow it."""

import copy
import re
import unicodedata
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from attelbo.errors import ConfigError, first_line


class Grammar(OverridesParser):
    """Hydra's parser, which parses no word twice: it takes a millisecond or two for each, and a composition, the jobs
    of a sweep and the trials of a search have the same ones again and again."""

    def parse_rule(self, s: str, rule_name: str) -> Any:
        return copy.copy(_parsed(s, rule_name))  # the caller sets its config_loader


@lru_cache(4096)
def _parsed(word: str, rule: str) -> Any:
    return OverridesParser.create().parse_rule(word, rule)


def malformed(word: str) -> ConfigError:
    """The error for a word that is not of the form key=value."""
    key, equals, value = word.partition("=")
    remedy = "put values with special characters in quotes, for Hydra and for the shell: \"key='a, b'\""
    if not key or not equals or not value.strip("="):
        remedy = "no spaces stand around the ="
    elif odd := [letter for letter in key if not letter.isascii()]:
        remedy = f"keys are ASCII, and '{odd[0]}' is {unicodedata.name(odd[0], 'a character without a name')}"
    return ConfigError(f"'{word}' (command line): not of the form key=value; {remedy}")


def wrong_kind(error: Exception) -> str | None:
    """The message for what Hydra raised at a value of another kind than the one that stands there; None for others."""
    found = re.match(r"Error merging override \+*([^=]+)=(.*)", str(error), re.DOTALL)
    if found is None or error.__cause__ is None:
        return None
    problem = first_line(error.__cause__)
    if problem.startswith("Cannot merge"):
        stands = "a list" if "object_type=list" in str(error.__cause__) else "a mapping"
        problem = f"expected {stands}, got {found[2]}"
    return f"{found[1]} (command line): {problem}"
