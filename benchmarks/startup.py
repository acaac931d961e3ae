"""Start-up: what a user waits for before anything is computed, and what a job of a multirun costs beside its training.

Programs are started in turns (A, B, C, A, B, C, ...), in whole processes; the first round fills the file cache and does
not count. The measure of all things is ``python -c "import torch, lightning.pytorch"``.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.report import spread
from benchmarks.turns import Span

IMPORTS = "the imports alone"
_SCRIPT = Path(sys.executable).with_name("attelbo")
ATTELBO = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "attelbo"]
FIRST_STEP = "benchmarks.contestants.first_step"
TINY = ("trainer.max_epochs=1", "evaluation.n_samples=10", "evaluation.n_images=50")
FEW, MANY = 2, 6
"""Jobs of the two multiruns whose difference gives the cost of one."""


def run(mnist: Path, rounds: int, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Seconds of each program, what it takes beyond the imports alone, and what a job of a multirun takes.

    Args:
        mnist: a folder with MNIST's files.
        rounds: that count.
        tell: called with a line about the progress.

    Raises:
        RuntimeError: a program failed.
    """
    programs: dict[str, Callable[[], Span]] = {
        IMPORTS: lambda: whole([sys.executable, "-c", "import torch, lightning.pytorch"]),
        "attelbo --help": lambda: whole([*ATTELBO, "--help"]),
        "attelbo train, to the end of the first training step": lambda: to_first_step([]),
        "attelbo train experiment=mnist/vae_mlp, to the end of the first training step": lambda: to_first_step(
            ["experiment=mnist/vae_mlp", f"paths.data_dir={mnist}"]
        ),
    }
    spans: dict[str, list[Span]] = {name: [] for name in programs}
    for lap in range(1 + rounds):
        for name, program in programs.items():
            span = program()
            if lap > 0:
                spans[name].append(span)
    result: dict[str, Any] = {"programs": {}}
    for name, own in spans.items():
        beyond = [span.wall - imports.wall for span, imports in zip(own, spans[IMPORTS], strict=True)]
        result["programs"][name] = {
            "seconds": spread([span.wall for span in own]),
            "processor_seconds": spread([span.cpu for span in own]),
            "beyond_the_imports": spread(beyond),
        }
        tell(f"{name}: {median(span.wall for span in own):.2f} s")
    result["multirun"] = multirun(rounds=max(1, rounds // 2))
    tell(f"a job of a multirun: {result['multirun']['beyond_training']['median']:.2f} s beside its training")
    return result


def whole(command: Sequence[str]) -> Span:
    """What a command takes from its start to its end.

    Raises:
        RuntimeError: it failed.
    """
    start = _clocks()
    done = subprocess.run(command, capture_output=True, text=True)
    span = _clocks() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return span


def _clocks() -> Span:
    """The monotonic clock, which all processes share, and the processor time of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Span(time.monotonic(), used.ru_utime + used.ru_stime)


def to_first_step(words: Sequence[str]) -> Span:
    """What ``attelbo train`` takes from its start to the end of its first training step."""
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        start = _clocks()
        span = whole([sys.executable, "-m", FIRST_STEP, str(mark), "train", *words, f"paths.output_dir={folder}"])
        return Span(float(mark.read_text()) - start.wall, span.cpu)


def multirun(rounds: int) -> dict[str, Any]:
    """Seconds that one more job of the default experiment, an epoch long, adds to a multirun; in all, and without its
    training. Evaluation, pictures and the report count as beside the training."""
    jobs: list[float] = []
    beyond: list[float] = []
    evaluation: list[float] = []
    for _ in range(rounds):
        few, _ = _jobs(FEW)
        many, results = _jobs(MANY)
        jobs.append((many - few) / (MANY - FEW))
        beyond.append(jobs[-1] - mean(result["seconds"]["train"] for result in results))
        evaluation.append(mean(result["seconds"]["evaluate"] for result in results))
    return {"job": spread(jobs), "beyond_training": spread(beyond), "evaluation": spread(evaluation)}


def _jobs(n: int) -> tuple[float, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(n)))
        seconds = whole([*ATTELBO, "train", "-m", f"seed={seeds}", *TINY, f"paths.output_dir={folder}"]).wall
        results = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("result.json")]
    if len(results) != n:
        raise RuntimeError(f"a multirun of {n} jobs left {len(results)} results")
    return seconds, results
