"""What a benchmark ran on: hardware, versions, commit."""

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
