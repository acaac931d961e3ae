"""Environments of peers: made once below ``benchmarks/.envs``, with torch in the version that attelbo runs on."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent / ".envs"
PATIENCE = 900
"""Seconds for an installation."""

_VERSIONS = """
import json
from importlib.metadata import version
import {package}
print(json.dumps({{name: version(name) for name in ("{package}", "torch", "numpy")}}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a peer lives, or why it does not."""

    python: str
    """Its interpreter."""
    versions: dict[str, str]
    """Of the package, of torch and numpy."""
    missing: str | None = None
    """The reason why there is none, one line."""


def environment(package: str, python: str | None = None, tell: Callable[[str], None] = print) -> Environment:
    """The environment with the newest ``package`` from the package index, installed if it is not there yet.

    Args:
        package: its name, to install and to import.
        python: an interpreter that has it already; nothing is installed then.
        tell: called with a line about what is done.
    """
    folder = FOLDER / package
    own = python or str(folder / "bin" / "python")
    try:
        if python is None and not _is_current(folder):
            tell(f"installing {package} into {folder} ...")
            _install(package, folder)
        return Environment(own, _versions(package, own))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = f"{package} could not be installed: {_in_one_line(error)}"
        tell(reason)
        return Environment(own, {}, reason)


def _is_current(folder: Path) -> bool:
    """Whether something was installed there beside the torch that attelbo runs on now."""
    return any(folder.glob(f"lib/*/site-packages/torch-{version('torch')}*.dist-info"))


def _install(package: str, folder: Path) -> None:
    """With torch pinned to ours; where the package asks for another torch, this fails and says so."""
    torch, _, build = version("torch").partition("+")
    backend = ["--torch-backend", build] if build.startswith("cpu") else []  # torch's own index has those builds
    own = str(folder / "bin" / "python")
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--python", own, *backend, package, f"torch=={torch}")


def _uv(*words: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), *words], check=True, capture_output=True, text=True, timeout=PATIENCE)


def _versions(package: str, python: str) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", _VERSIONS.format(package=package)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _in_one_line(error: Exception) -> str:
    """What the program said last, without the addresses in it."""
    said = (getattr(error, "stderr", None) or str(error)).strip() or type(error).__name__
    return " ".join(re.sub(r"\w+://\S+", "...", said).split())[-300:]
