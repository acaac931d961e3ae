"""Hydra's grammar of the command line, with a memory."""

import copy
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser


class Grammar(OverridesParser):
    """Hydra's parser, which takes no word apart twice: it needs a millisecond or two for each, and a composition, a
    sweep's jobs, a search's trials ask for the same ones again and again."""

    def parse_rule(self, s: str, rule_name: str) -> Any:
        return copy.copy(_parsed(s, rule_name))  # whoever asked tells it where to find files


@lru_cache(4096)
def _parsed(word: str, rule: str) -> Any:
    return OverridesParser.create().parse_rule(word, rule)
