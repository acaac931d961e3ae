"""``attelbo reproduce``: the runs of a paper's table as a sweep that can be given again; then the table."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attelbo.experiments.assembly import verify
from attelbo.experiments.comparison.runs import read_run
from attelbo.experiments.composing import is_task_word, loader_of
from attelbo.experiments.configuration import Composition, check, compose, with_folders
from attelbo.experiments.papers.specification import Budget, Paper
from attelbo.experiments.papers.table import Reproduction, as_markdown, as_rich
from attelbo.experiments.rundir import config_hash
from attelbo.experiments.sweeps import running
from attelbo.files import write_atomically

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


@dataclass(frozen=True)
class Plan:
    """The runs of a paper at a budget."""

    cells: dict[str, list[Composition]]
    """One for each seed."""
    folder: Path

    @property
    def jobs(self) -> list[Composition]:
        return [job for jobs in self.cells.values() for job in jobs]


def plan_of(
    name: str, paper: Paper, budget: Budget, seeds: int | None, given: Sequence[str], config_dir: Path | None = None
) -> Plan:
    """Compose, check and build every run.

    Args:
        name: of the paper.
        paper: its table.
        budget: how much is spent.
        seeds: runs of each cell; as many as the budget says if None.
        given: further words, for all runs.
        config_dir: a folder that adds to the groups.

    Raises:
        ConfigError: a word is wrong, or parts do not fit together.
    """
    n = paper.budgets[budget].seeds if seeds is None else seeds
    cells = {
        cell: [compose("train", words, config_dir=config_dir) for words in paper.jobs(cell, budget, n, given)]
        for cell in paper.cells
    }
    for jobs in cells.values():
        for job in jobs:
            check(job)
        verify(jobs[0].config)
    # More seeds later are more runs in the same folder.
    firsts = " ".join(config_hash(jobs[0].config) for jobs in cells.values())
    digest = hashlib.sha256(firsts.encode()).hexdigest()[:8]
    output = Path(next(iter(cells.values()))[0].config["paths"]["output_dir"])
    return Plan(cells, output / "papers" / name / f"{budget}-{digest}")


def reproduce(hydra: "Hydra", paper: Paper, budget: Budget, plan: Plan, task: Callable[..., Any]) -> int:
    """Run what is not done, print the table and write it beside the runs; the exit code of the command.

    Args:
        hydra: of the session.
        paper: its table.
        budget: how much is spent.
        plan: its runs.
        task: what a job runs.
    """
    loader_of(hydra).name_sweep(plan.folder)
    for_hydra = [word for word in plan.jobs[0].overrides if not is_task_word(word)]
    code = running.run(hydra, plan.jobs, plan.folder, with_folders(for_hydra, plan.jobs[0].folders), task)
    runs = {
        cell: [read_run(plan.folder / config_hash(job.config)) for job in jobs] for cell, jobs in plan.cells.items()
    }
    reproduction = Reproduction.of(paper, budget, runs)
    file = write_atomically(plan.folder / "table.md", as_markdown(reproduction))
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, 160)
    console.print(as_rich(reproduction))
    for note in reproduction.notes():
        console.print(note, highlight=False, markup=False)
    console.print(str(file), highlight=False, markup=False)
    return code
