"""What is written down about a run's origin."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import attelbo
from attelbo.experiments import provenance as module
from attelbo.experiments.provenance import git_tag, in_short, provenance

CONFIG = {"seed": 7, "data": {"name": "digits"}}


@pytest.fixture(autouse=True)
def forget_git():
    module._git.cache_clear()
    yield
    module._git.cache_clear()


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def installed_in(monkeypatch):
    """attelbo as if it were installed in another folder."""

    def place(folder: Path) -> Path:
        package = folder / "attelbo"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        monkeypatch.setattr(attelbo, "__file__", str(package / "__init__.py"))
        return package / "__init__.py"

    return place


def test_it_tells_what_made_the_run():
    origin = provenance(CONFIG, ["seed=7"], {"train": "abc"})
    assert origin["seed"] == 7
    assert origin["overrides"] == ["seed=7"]
    assert origin["data"] == {"name": "digits", "checksums": {"train": "abc"}}
    assert origin["versions"]["python"] == platform.python_version()
    assert origin["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(origin["versions"]) >= {"attelbo", "torch", "lightning", "hydra-core", "wandb"}
    assert origin["hardware"]["threads"] == torch.get_num_threads()
    assert origin["hardware"]["cpu"]
    json.dumps(origin)


def test_the_commit_and_what_was_changed_since(tmp_path, installed_in):
    source = installed_in(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    sha = git(tmp_path, "rev-parse", "HEAD")
    origin = provenance(CONFIG, [], {})["git"]
    assert origin == {"sha": sha, "diff": ""}
    assert git_tag() == f"git-{sha[:7]}"

    module._git.cache_clear()
    source.write_text("changed = True\n")
    assert "+changed = True" in provenance(CONFIG, [], {})["git"]["diff"]
    assert git_tag() == f"git-{sha[:7]}+"

    module._git.cache_clear()
    git(tmp_path, "config", "color.ui", "always")
    source.write_bytes("café = 1\n".encode("latin-1"))
    assert "\n+caf\ufffd = 1\n" in provenance(CONFIG, [], {})["git"]["diff"]


def test_installed_without_git(tmp_path, installed_in, monkeypatch):
    installed_in(tmp_path / "site-packages")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert provenance(CONFIG, [], {})["git"] is None
    assert git_tag() is None


def test_installed_inside_a_repository_of_something_else(tmp_path, installed_in, monkeypatch):
    # A virtual environment in a user's project: the project's commit says nothing about attelbo's code, but
    # something about the run, where it is the working folder.
    git(tmp_path, "init", "-q")
    (tmp_path / "own.py").write_text("")
    git(tmp_path, "add", "own.py")
    git(tmp_path, "commit", "-q", "-m", "the user's own")
    installed_in(tmp_path / ".venv")
    (tmp_path.parent / f"{tmp_path.name}-elsewhere").mkdir()
    monkeypatch.chdir(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    assert provenance(CONFIG, [], {})["git"] is None
    module._git.cache_clear()
    monkeypatch.chdir(tmp_path)
    assert provenance(CONFIG, [], {})["git"]["sha"] == git(tmp_path, "rev-parse", "HEAD")


def test_no_git_at_all(tmp_path, installed_in, monkeypatch):
    installed_in(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_tag() is None


def test_in_short_without_a_version_that_was_not_recorded():
    recorded = {"git": None, "versions": {"python": "3.11.7"}, "hardware": {"cpu": "EPYC", "gpus": []}}
    assert in_short(recorded) == "attelbo none, torch none, EPYC"
