"""``attelbo reproduce``: the runs of a paper's table as a resumable sweep; then the table."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attelbo.errors import UserError
from attelbo.experiments.assembly import verify
from attelbo.experiments.comparison.runs import read_run
from attelbo.experiments.composing import is_task_word, loader_of
from attelbo.experiments.configuration import Composition, check, compose, with_folders
from attelbo.experiments.papers.asides import cost_of_run
from attelbo.experiments.papers.specification import Budget, Paper, words_of_file
from attelbo.experiments.papers.table import FORMS, Reproduction, as_rich
from attelbo.experiments.rundir import config_hash, short_hash
from attelbo.experiments.sweeps import running
from attelbo.experiments.terminal import terminal
from attelbo.files import why_not_written, write_atomically

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


@dataclass(frozen=True)
class Plan:
    """The runs of a paper at a budget."""

    cells: dict[str, list[list[Composition]]]
    """Of each cell the choices, of each of them one run for each seed."""
    choices: list[str | None]
    """Of ``best_of``."""
    folder: Path

    @property
    def jobs(self) -> list[Composition]:
        return [job for of_cell in self.cells.values() for jobs in of_cell for job in jobs]


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
    choices = paper.choices(budget, given)
    with words_of_file(name, given):
        cells = {
            cell: [
                [compose("train", words, config_dir=config_dir) for words in paper.jobs(cell, budget, n, given, choice)]
                for choice in choices
            ]
            for cell in paper.cells
        }
        for job in itertools.chain.from_iterable(itertools.chain.from_iterable(cells.values())):
            check(job)
    firsts = [jobs[0].config for of_cell in cells.values() for jobs in of_cell]
    for of_cell in cells.values():
        verify(of_cell[0][0].config)
    # More seeds later are more runs in the same folder.
    what = short_hash(" ".join(map(config_hash, firsts)))
    return Plan(cells, choices, Path(firsts[0]["paths"]["output_dir"]) / "papers" / name / f"{budget}-{what}")


def reproduce(
    hydra: "Hydra",
    paper: Paper,
    budget: Budget,
    plan: Plan,
    task: Callable[..., Any],
    outputs: Sequence[Path] = (),
    cells: Sequence[str] = (),
) -> int:
    """Run what is not done, print the table and write it beside the runs; the exit code of the command.

    Args:
        hydra: of the session.
        paper: its table.
        budget: how much is spent.
        plan: its runs.
        task: what a job runs.
        outputs: further files, whose form follows from their suffix, see ``FORMS``.
        cells: those to run, all if empty; the table has what there is of the others.

    Raises:
        UserError: a file cannot be written; raised before anything runs.
    """
    for file in outputs:
        if why := why_not_written(file):
            raise UserError(f"reproduce: --output {file} cannot be written: {why}")
    for_hydra = [word for word in plan.jobs[0].overrides if not is_task_word(word)]
    only = {config_hash(job.config) for cell in cells or plan.cells for jobs in plan.cells[cell] for job in jobs}
    shared = with_folders(for_hydra, plan.jobs[0].folders)
    with loader_of(hydra).sweep(plan.folder):
        code = running.run(hydra, plan.jobs, plan.folder, shared, task, only)
    runs = {
        cell: [[read_run(plan.folder / config_hash(job.config)) for job in jobs] for jobs in of_cell]
        for cell, of_cell in plan.cells.items()
    }
    costs = {cell: cost_of_run(of_cell[0][0].config) for cell, of_cell in plan.cells.items()} if paper.costs else {}
    reproduction = Reproduction.of(paper, budget, runs, plan.choices, costs)
    files = [plan.folder / "table.md", *outputs]
    for file in files:
        try:
            write_atomically(file, FORMS[file.suffix](reproduction))
        except OSError as error:
            raise UserError(f"reproduce: --output {file} cannot be written: {error.strerror}") from error
    console = terminal(160)
    console.print(as_rich(reproduction))
    for note in reproduction.notes():
        console.print(note)
    for file in files:
        console.print(str(file))
    return code
