"""Values in quotes, as Hydra's command line has them."""

import re


def quoted(value: str) -> str:
    """``'value'``, quotes and the backslashes before them escaped: those are all that Hydra reads in it."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value) + "'"


def with_letters(word: str) -> str:
    """A word ``key=value``, its value in quotes where that has letters beyond ASCII, which Hydra takes in quotes only,
    and nothing that means something to Hydra: ``run=outputs/größe``."""
    key, _, value = word.partition("=")
    return f"{key}={quoted(value)}" if not value.isascii() and _PLAIN.fullmatch(value) else word


_PLAIN = re.compile(r"[\w ./~@%+\-\u0080-\U0010ffff]+")
