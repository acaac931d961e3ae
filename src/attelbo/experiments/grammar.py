"""Hydra's grammar of the command line, with a cache."""

import copy
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser


class Grammar(OverridesParser):
    """Hydra's parser, which parses no word twice: it takes a millisecond or two for each, and a composition, the jobs
    of a sweep and the trials of a search have the same ones again and again."""

    def parse_rule(self, s: str, rule_name: str) -> Any:
        return copy.copy(_parsed(s, rule_name))  # the caller sets its config_loader


@lru_cache(4096)
def _parsed(word: str, rule: str) -> Any:
    return OverridesParser.create().parse_rule(word, rule)
