"""The table of a reproduction: what was published, what was measured, and what may be said about it.

A verdict is given at the full budget only, and only on what has been published.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attelbo.experiments.comparison.runs import Run
from attelbo.experiments.comparison.statistics import Estimate
from attelbo.experiments.comparison.table import value_of
from attelbo.experiments.papers.specification import Budget, Cell, Paper

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One cell, measured."""

    name: str
    cell: Cell
    measured: Estimate | None
    seconds: float | None
    """Of one run."""
    missing: int
    """Seeds whose run is not done."""


@dataclass(frozen=True)
class Reproduction:
    """A paper's table beside the measured numbers."""

    paper: Paper
    budget: Budget
    rows: Sequence[Row]

    @classmethod
    def of(cls, paper: Paper, budget: Budget, runs: Mapping[str, Sequence[Run | None]]) -> "Reproduction":
        """From the runs of each cell, None where one has not begun."""
        rows = []
        for name, cell in paper.cells.items():
            done = [run for run in runs[name] if run is not None and run.state == "done"]
            metric = cell.metric or paper.metric
            values = [value for run in done if (value := value_of(run, metric)) is not None]
            seconds = sum(run.seconds for run in done) / len(done) if done else None
            measured = Estimate.of(values) if values else None
            rows.append(Row(name, cell, measured, seconds, len(runs[name]) - len(values)))
        return cls(paper, budget, rows)

    def verdict(self, row: Row) -> str:
        """``within 0.8``, ``1.2 away``, or nothing where nothing may be said."""
        tolerance = row.cell.tolerance or self.paper.tolerance
        if self.budget != "full" or row.cell.published is None or tolerance is None or row.measured is None:
            return ""
        if row.missing:
            return f"{row.missing} seeds missing"
        away = row.measured.mean - row.cell.published
        if abs(away) <= tolerance:
            return f"reproduced (within {tolerance:g})"
        good = (away > 0) == (self.paper.better == "more")
        return f"{'better' if good else 'worse'} by {abs(away):.{self.paper.digits}f} (tolerance {tolerance:g})"

    def order(self) -> str:
        """Whether the cells get better in the order that the paper claims; empty if it claims none."""
        by_name = {row.name: row.measured for row in self.rows}
        measured = [by_name[name] for name in self.paper.order]
        if not measured:
            return ""
        claim = " > ".join(self._title(name) for name in reversed(self.paper.order))
        values = [estimate.mean for estimate in measured if estimate is not None]
        if len(values) < len(measured):
            return f"order {claim}: not all cells are measured"
        sign = 1 if self.paper.better == "more" else -1
        holds = all(sign * (b - a) > 0 for a, b in itertools.pairwise(values))
        found = "holds" if holds else "does not hold"
        decides = "" if self.budget == "full" else " at this budget, which decides nothing"
        return f"order {claim}, the best first: {found}{decides}"

    def _title(self, name: str) -> str:
        return self.paper.cells[name].title or name

    @property
    def head(self) -> list[str]:
        unit = f", {self.paper.unit}" if self.paper.unit else ""
        return ["cell", f"published{unit}", "trust", f"measured{unit}", "seeds", "s a run", "verdict"]

    def cells(self) -> list[list[str]]:
        """The rows of the table."""
        digits = self.paper.digits
        return [
            [
                self._title(row.name),
                "-" if row.cell.published is None else f"{row.cell.published:.{digits}f}",
                row.cell.trust or "-",
                "-" if row.measured is None else row.measured.text(digits),
                "0" if row.measured is None else str(row.measured.n),
                "-" if row.seconds is None else f"{row.seconds:.0f}",
                self.verdict(row) or "-",
            ]
            for row in self.rows
        ]

    def notes(self) -> list[str]:
        """What stands below the table."""
        effort = self.paper.budgets[self.budget]
        sources = [
            f"{self._title(row.name)}: {row.cell.source}"
            for row in self.rows
            if row.cell.published is not None and row.cell.source
        ]
        notes = [
            f"{self.paper.metric} ({'more' if self.paper.better == 'more' else 'less'} is better), budget {self.budget}"
            f"{f': {effort.note}' if effort.note else ''}, {datetime.now(UTC):%Y-%m-%d}",
            self.order(),
            self.paper.note,
            *sources,
            "trust: A read in the paper or in its authors' or a re-implementation's own repository, B quoted elsewhere",
        ]
        if self.budget != "full":
            notes.append("a verdict is given at --budget full only")
        return [note for note in notes if note]


def as_rich(reproduction: Reproduction) -> "Table":
    """For the terminal."""
    from rich.table import Table

    table = Table(box=None, title_justify="left", title=f"{reproduction.paper.title} ({reproduction.paper.source})")
    for place, name in enumerate(reproduction.head):
        table.add_column(name, justify="left" if place in (0, 2, 6) else "right", no_wrap=True)
    for row in reproduction.cells():
        table.add_row(*row)
    return table


def as_markdown(reproduction: Reproduction) -> str:
    """The page that stands beside the runs."""
    lines = [f"# {reproduction.paper.title}", "", reproduction.paper.source, ""]
    lines += [f"| {' | '.join(row)} |" for row in (reproduction.head, ["---"] * len(reproduction.head))]
    lines += [f"| {' | '.join(row)} |" for row in reproduction.cells()]
    return "\n".join([*lines, "", *(f"- {note}" for note in reproduction.notes())]) + "\n"
