"""A language model: attelbo by its own command and the loop of nanoGPT, in turns on the same text."""

import pydoc_data.topics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.report import compare
from benchmarks.task import LanguageTask
from benchmarks.training import BF16, OURS, Entry
from benchmarks.turns import Program, take_turns

LOOP = "the loop of nanoGPT"
ENTRIES = {
    OURS: Entry("language_command"),
    BF16: Entry("language_command", {"bf16": True}),
    LOOP: Entry("language_loop"),
}
SHAKESPEARE = Path("tinyshakespeare", "input.txt")


def lay_out(source: Path, folder: Path) -> Path:
    """Put a text below a folder: Shakespeare if ``source`` has it, else the reference of the Python language."""
    own = source / SHAKESPEARE
    text = own.read_text(encoding="utf-8") if own.is_file() else "\n".join(pydoc_data.topics.topics.values())
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def task_for(text: Path, rounds: int, steps: int, device: Any = "cpu") -> LanguageTask:
    """nanoGPT's setting for a CPU, on one thread."""
    return LanguageTask(
        name="GPT of 4 layers, 4 heads, 128 features, 64 characters",
        text=str(text.absolute()),
        threads=1 if device == "cpu" else None,
        laps=1 + rounds,
        steps=steps,
        device=device,
    )


def run(task: LanguageTask, patience: float, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Rates and ratios of all.

    Args:
        task: what all do.
        patience: seconds of laps after which no further round is begun.
        tell: called with a line about the progress.

    Raises:
        RuntimeError: a contestant failed.
    """
    from attelbo.training.trainer import bf16_is_fast

    fast = bf16_is_fast("cpu" if task.device == "cpu" else "gpu")
    programs = {
        name: Program(f"benchmarks.contestants.{entry.module}", replace(task, **entry.changes).to_json())
        for name, entry in ENTRIES.items()
        if name != BF16 or fast
    }
    race = take_turns(programs, task.laps, patience, tell)
    found = compare(race, OURS, LOOP)
    tell(f"{task.name}: {found[OURS]['train']['ratio']['median']:.2f} of {LOOP}")
    return {"task": asdict(replace(task, text="")), "contestants": found}
