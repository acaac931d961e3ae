"""Whether two run directories say the same, bit for bit: checkpoints, curves and results."""

import json
from pathlib import Path
from typing import Any

import torch


def same(a: Any, b: Any) -> bool:
    """Whether two nested containers of tensors and plain values are equal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def metrics(run: Path) -> dict[str, float]:
    """What the run was measured at on the test split."""
    return json.loads((run / "result.json").read_text())["metrics"]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Both checkpoints but for their seconds, the curves (whose lines may come in another order) and the result."""
    for name in ("last", "best"):
        ours, theirs = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        for checkpoint in (ours, theirs):
            del checkpoint["callbacks"]["BlockStepper"]["seconds"]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step"):
            assert same(ours[key], theirs[key]), f"{name}: {key}"
    lines = [sorted((run / "metrics.csv").read_text().splitlines()) for run in (one, other)]
    assert lines[0] == lines[1]
    assert metrics(one) == metrics(other)
