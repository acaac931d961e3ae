"""Which build of torch `make` keeps installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="this machine has no make")
@pytest.mark.parametrize(
    ("installed", "words", "ready"),
    [
        (None, [], ".ready"),
        (None, ["TORCH=cpu"], ".ready-cpu"),
        (".ready", [], ".ready"),
        (".ready-cpu", [], ".ready-cpu"),
        (".ready-cpu", ["TORCH=cu130"], ".ready-cu130"),
        (".ready-cpu", ["TORCH="], ".ready"),
    ],
)
def test_a_build_of_torch_stays_until_another_is_named(tmp_path, monkeypatch, installed, words, ready):
    monkeypatch.delenv("TORCH", raising=False)
    (tmp_path / ".venv").mkdir()
    if installed is not None:
        (tmp_path / ".venv" / installed).touch()
    command = ["make", "--file", str(ROOT / "Makefile"), "--print-data-base", "--question", "help", *words]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert f"\nREADY := .venv/{ready}\n" in told
