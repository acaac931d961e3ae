"""What a run was made with: code, versions, hardware, command, seed, data."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import attelbo

PACKAGES = ("attelbo", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "wandb")
_LONGEST_DIFF = 1_000_000
_DIFF = ("diff", "--no-color", "--no-ext-diff")
"""Whatever the user's settings of git say."""


def provenance(config: Mapping[str, Any], overrides: list[str], checksums: Mapping[str, str]) -> dict[str, Any]:
    """Everything needed to run this again, or to know why it cannot be."""
    return {
        "argv": sys.argv,
        "overrides": overrides,
        "seed": config["seed"],
        "data": {"name": config["data"]["name"], "checksums": dict(checksums)},
        "git": _git(),
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": _hardware(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two provenances in code, versions and hardware, a line each."""
    code = [("code", *(_described(each["git"]) for each in (then, now)))]
    if then["git"] != now["git"] and code[0][1] == code[0][2]:
        code = [("code", code[0][1], "other changes on top of it")]
    facts = [
        (name, then[node].get(name), now[node].get(name))
        for node, names in (("versions", ("python", *PACKAGES)), ("hardware", ("system", "cpu", "gpus")))
        for name in names
    ]
    return [f"{name} differs: {_told(a)} then, {_told(b)} now" for name, a, b in (*code, *facts) if a != b]


def in_short(recorded: Mapping[str, Any]) -> str:
    """Code, torch and machine of a recorded provenance, in a few words."""
    versions = recorded["versions"]
    code = _described(recorded["git"]) or _told(versions.get("attelbo"))
    machine = _told(sorted(set(recorded["hardware"]["gpus"])) or recorded["hardware"]["cpu"])
    return f"attelbo {code}, torch {_told(versions.get('torch'))}, {machine}"


def _described(git: Mapping[str, str] | None) -> str | None:
    return None if git is None else f"{git['sha'][:7]}{' with uncommitted changes' if git['diff'] else ''}"


def _told(value: Any) -> str:
    return "none" if value in (None, [], "") else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def git_tag() -> str | None:
    """The code's version as a short tag, ``git-1a2b3c4``, with ``+`` where files were changed."""
    git = _git()
    return f"git-{git['sha'][:7]}{'+' if git['diff'] else ''}" if git else None


@cache
def _git() -> dict[str, str] | None:
    """Commit and uncommitted changes of the checkout that attelbo runs from, else of the working folder."""
    for folder in (Path(attelbo.__file__).parent, Path.cwd()):
        sha = _run_git(folder, "rev-parse", "HEAD")
        tracked = sha and _run_git(
            folder, "ls-files", "--error-unmatch", "." if folder == Path.cwd() else "__init__.py"
        )
        if sha and tracked is not None:
            return {"sha": sha.strip(), "diff": (_run_git(folder, *_DIFF, "HEAD") or "")[:_LONGEST_DIFF]}
    return None


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")  # a diff has the bytes of its files, in whatever encoding


@cache
def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
