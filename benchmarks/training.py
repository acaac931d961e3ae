"""Training throughput: attelbo through its own command beside the bare loop.

Both train the same VAE on the same rows with the same optimizer and number of threads, in turns of one epoch; the
first epoch of each warms up and does not count.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.data import N_TRAIN, has_mnist, write_random_mnist
from benchmarks.report import compare
from benchmarks.task import Task
from benchmarks.turns import take_turns

CONTESTANTS = {"attelbo": "benchmarks.contestants.command", "bare": "benchmarks.contestants.bare_loop"}
ROUNDS, QUICK_ROUNDS = 4, 3
QUICK_ROWS = 20_000
PATIENCE, QUICK_PATIENCE = 45.0, 12.0
"""Seconds for the laps of one task: on a busy machine two threads may take ten times as long as one."""
VALIDATION_ROWS = 400


def tasks(quick: bool, rounds: int, data_dir: Path) -> list[Task]:
    """What is measured: two networks, with one thread and with as many as torch chooses."""
    small = Task(
        name="784-200-200-z50 tanh",
        hidden=(200, 200),
        latent_dim=50,
        activation="tanh",
        threads=1,
        laps=1 + rounds,
        train_size=QUICK_ROWS if quick else N_TRAIN - VALIDATION_ROWS,
        validation_size=VALIDATION_ROWS,
        data_dir=str(data_dir.absolute()),
    )
    large = replace(small, name="784-512-512-z16 ReLU", hidden=(512, 512), latent_dim=16, activation="relu")
    return [replace(task, threads=threads) for task in (small, large) for threads in ((1,) if quick else (1, None))]


def run(
    data_dir: Path, quick: bool, rounds: int | None, only: str = "", tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure every task; the result as plain containers, the laps of every contestant in it.

    Args:
        data_dir: where MNIST may be.
        quick: few rounds of one thread, on a third of the rows.
        rounds: laps of each contestant that count, if the patience lasts; None: the usual number.
        only: tasks whose name contains this.
        tell: called with a line about the progress.

    Raises:
        RuntimeError: a contestant failed.
    """
    started, load = time.time(), os.getloadavg()
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        real = has_mnist(data_dir)
        if not real:
            data_dir = Path(folder)
            write_random_mnist(data_dir)
        results: list[dict[str, Any]] = []
        machine: dict[str, Any] = {}
        for task in tasks(quick, rounds, data_dir):
            if only not in task.name:
                continue
            laps, about = take_turns(CONTESTANTS, task.to_json(), task.laps, QUICK_PATIENCE if quick else PATIENCE)
            machine = json.loads(about["attelbo"]["provenance"])
            result = compare(laps["attelbo"][1:], laps["bare"][1:])
            ratio = result["train"]["ratio"]["median"]
            tell(f"{task.name}, threads {task.threads or 'default'}: {ratio:.3f} of the bare loop")
            results.append(
                {
                    "task": asdict(replace(task, data_dir="")),
                    "threads": about["bare"]["threads"],
                    **result,
                    "laps": {name: [asdict(lap) for lap in own] for name, own in laps.items()},
                }
            )
    git = machine.get("git")
    return {
        "benchmark": "training",
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "quick": quick,
        "data": "MNIST" if real else "random images",
        "load_average": {"before": load, "after": os.getloadavg()},
        "hardware": {key: machine["hardware"][key] for key in ("system", "cpu", "cores", "gpus")} if machine else {},
        "versions": machine.get("versions", {}),
        "git": {"sha": git["sha"], "changed": bool(git["diff"])} if git else None,
        "results": results,
    }
