"""``attelbo wandb sync``: send runs that W&B logged offline to its server, by W&B's own command."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attelbo.errors import UserError
from attelbo.experiments.rundir import RunDirectory
from attelbo.training.loggers.server import require_server

RETRIES = 5
"""Of a request, with growing pauses; W&B's own 20 are a matter of hours."""


def sync(folders: Sequence[Path]) -> None:
    """Send every offline run below these folders that is neither sent already nor still being written.

    Attempts of one run go to the same W&B run, in their order.

    Raises:
        UserError: a folder does not exist, nothing was logged offline there, the server does not answer, or it refused
            some runs, which are sent when the command is given again.
    """
    found = _offline_runs(folders)
    new = [file for file in found if not _is_sent(file)]
    now = [file for file in new if not _is_running(file)]
    others = {"sent already": len(found) - len(new), "still running": len(new) - len(now)}
    told = "".join(f", {n} {what}" for what, n in others.items() if n)
    if now:
        require_server("wandb sync", f"{_runs(now)} not sent yet{told}: nothing is lost")
    answer = _send(now) if now else ""
    sent = [file for file in now if _is_sent(file)]
    for file in sent:
        sys.stdout.write(f"sent: {file.parent}\n")
    if len(sent) < len(now):
        raise UserError(
            f"wandb sync: {_runs(sent)} sent, {len(now) - len(sent)} not{told}: {answer}; the same command again "
            "sends what is left"
        )
    sys.stdout.write(f"{_runs(sent)} sent{told}\n")


def _offline_runs(folders: Sequence[Path]) -> list[Path]:
    """The files of the offline runs, the earlier attempts of a run first."""
    files: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"wandb sync: {folder}: no such folder")
        paths = [path for path in sorted(folder.glob("**/run-*.wandb")) if "latest-run" not in path.parts]
        files |= dict.fromkeys(path for path in paths if path.parent.name.startswith("offline-run-"))
    if not files:
        raise UserError(
            f"wandb sync: nothing was logged offline in {', '.join(map(str, folders))}; attelbo train logger=wandb does"
        )
    return list(files)


def _runs(files: Sequence[Path]) -> str:
    return "1 run" if len(files) == 1 else f"{len(files)} runs"


def _is_sent(file: Path) -> bool:
    return file.with_suffix(".wandb.synced").exists()


def _is_running(file: Path) -> bool:
    """``<run>/wandb/offline-run-<time>-<id>/run-<id>.wandb``, where the run is being written."""
    return RunDirectory(file.parents[2]).is_held


def _send(files: Sequence[Path]) -> str:
    """Run ``wandb sync``; the last line of its output that looks like an error."""
    with tempfile.TemporaryDirectory() as logs:
        environment = {
            **os.environ,
            **{"WANDB_DIR": logs, "WANDB_CACHE_DIR": logs, "WANDB_ERROR_REPORTING": "false"},
            **{f"WANDB__{what}_RETRY_MAX": str(RETRIES) for what in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")},
        }
        words = [sys.executable, "-m", "wandb", "sync", *(str(file.absolute()) for file in files)]
        said = (
            subprocess.run(words, cwd=logs, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            .stderr.decode(errors="replace")
            .splitlines()
        )
    errors = [line for line in said if "error" in line.lower() and logs not in line]
    return (errors or said or ["no reason was given"])[-1].removeprefix("wandb: ").removeprefix("Error: ").rstrip(".")
