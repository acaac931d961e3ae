"""Several seeds at once: ``trainer.replicas=4`` beside a multirun of four seeds one after the other.

Whole commands in turns, start-up and evaluation included, and the training alone; MNIST, 784-200-200-z50, one thread.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants.command import words
from benchmarks.report import spread
from benchmarks.startup import ATTELBO, whole
from benchmarks.task import Task
from benchmarks.turns import Span

SEEDS = 4


def run(task: Task, rounds: int, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Seconds of both over the rounds, and how many times as fast the replicas are.

    Args:
        task: what each seed does.
        rounds: that count.
        tell: called with a line about the progress.

    Raises:
        RuntimeError: a command failed.
    """
    seeds = ",".join(map(str, range(SEEDS)))
    ways = {"one after the other": ["-m", f"seed={seeds}"], "replicas": [f"trainer.replicas={SEEDS}"]}
    spans: dict[str, list[Span]] = {way: [] for way in ways}
    training: dict[str, list[float]] = {way: [] for way in ways}
    bounds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for way, more in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                spans[way].append(whole([*ATTELBO, *words(task, Path(folder)), *more]))
                results = results_by_seed(Path(folder))
            if list(results) != list(range(SEEDS)):
                raise RuntimeError(f"{way}: results of the seeds {list(results)}, not of {SEEDS}")
            training[way].append(sum(result["seconds"]["train"] for result in results.values()))
            bounds[way] = [result["metrics"]["test/elbo"] for result in results.values()]
    slow, fast = ways
    faster = spread([a / b for a, b in zip(training[slow], training[fast], strict=True)])
    tell(f"{SEEDS} replicas: {median(training[fast]):.1f} s of training instead of {median(training[slow]):.1f} s")
    return {
        "seeds": SEEDS,
        "task": task.name,
        "rows": task.train_size,
        "epochs": task.laps,
        "training_seconds": {way: spread(own) for way, own in training.items()},
        "whole_seconds": {way: spread([span.wall for span in own]) for way, own in spans.items()},
        "processor_seconds": {way: spread([span.cpu for span in own]) for way, own in spans.items()},
        "training_faster": faster,
        "whole_faster": spread([a.wall / b.wall for a, b in zip(spans[slow], spans[fast], strict=True)]),
        "elbo": bounds,
        "largest_difference": max(abs(a - b) for a, b in zip(bounds[slow], bounds[fast], strict=True)),
    }


def results_by_seed(folder: Path) -> dict[int, dict[str, Any]]:
    """The results of all runs below a folder, in the order of their seeds."""
    found = {}
    for path in folder.rglob("result.json"):
        made = json.loads(path.with_name("provenance.json").read_text(encoding="utf-8"))
        found[made["seed"]] = json.loads(path.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))
