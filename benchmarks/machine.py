"""What a benchmark, or a run that a page shows, was made on: hardware, versions, commit."""

import json
from pathlib import Path
from typing import Any

from attelbo.experiments.provenance import provenance


def this_machine() -> dict[str, Any]:
    """As attelbo tells it of its runs, without the machine's name."""
    made = provenance({"seed": 0, "data": {"name": ""}}, [], {})
    git = made["git"]
    return {
        "hardware": {key: made["hardware"][key] for key in ("system", "cpu", "cores", "gpus")},
        "versions": made["versions"],
        "git": {"sha": git["sha"], "changed": bool(git["diff"])} if git else None,
    }


def machine_in_short() -> str:
    """``<processor> (2 cores), torch <version>``."""
    made = this_machine()
    return f"{made['hardware']['cpu']} ({made['hardware']['cores']} cores), torch {made['versions']['torch']}"


def made_on(run: Path) -> tuple[str, str]:
    """The day on which a run began, and the commit of attelbo, with a plus where changes were not committed;
    empty where it is not known."""
    status, made = (json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("status", "provenance"))
    git = made["git"]
    return status["started"][:10], f"{git['sha'][:7]}{'+' * bool(git['diff'])}" if git else ""
