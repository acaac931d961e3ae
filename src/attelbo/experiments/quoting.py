"""Values in quotes, as Hydra's command line has them."""

import re


def quoted(value: str) -> str:
    """``'value'``, quotes and the backslashes before them escaped: those are all that Hydra reads in it."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value) + "'"
