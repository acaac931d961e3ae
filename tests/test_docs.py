"""What docs/ says can be typed can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from attelbo.experiments.configuration import check, compose

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
WORDS = [words for row in ROWS for words in re.findall("`([^`]*=[^`]*)`", row)]


def test_nothing_is_missed() -> None:
    assert len(WORDS) > 60


@pytest.mark.parametrize("words", WORDS)
def test_what_is_called_otherwise_elsewhere_is_there(words: str) -> None:
    given = [word for word in shlex.split(words) if word != "-m"]
    others = [word for word in given if not any(ROOT.glob(f"conf/{choice_at(word)}.yaml"))]
    if others:
        check(compose("train", given))


def choice_at(word: str) -> str:
    """Where the file of a choice would be; a glob's names several."""
    group, _, choice = word.partition("=")
    return f"{group}/{choice.removeprefix('glob(').removesuffix(')')}"
