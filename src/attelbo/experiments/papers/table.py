"""The table of a reproduction: published values, measured values, and verdicts.

A verdict is given at the full budget only, and only on published values.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attelbo.experiments.comparison.runs import Run
from attelbo.experiments.comparison.statistics import Estimate
from attelbo.experiments.comparison.table import OVER_SEEDS, escaped, markdown_row, tabular, value_of
from attelbo.experiments.listing import nearest_of
from attelbo.experiments.papers.asides import Cost, asides
from attelbo.experiments.papers.specification import Budget, Cell, Paper
from attelbo.files import csv_text

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
    """Runs that are not done; those with other choices count until they are done or have failed."""
    date: str = ""
    """When the last run was done."""
    choice: str | None = None
    """The one of the paper's ``best_of`` that was the best in validation."""


@dataclass(frozen=True)
class Reproduction:
    """A paper's table beside the measured numbers."""

    paper: Paper
    budget: Budget
    rows: Sequence[Row]
    asides: Sequence[str] = ()
    """Notes below the table."""

    @classmethod
    def of(
        cls,
        paper: Paper,
        budget: Budget,
        runs: Mapping[str, Sequence[Sequence[Run | None]]],
        choices: Sequence[str | None] = (None,),
        costs: Mapping[str, Cost] | None = None,
    ) -> "Reproduction":
        """From the runs of each cell with each of the choices, None for one that has not begun, and their costs."""
        rows, all_done, told = [], {}, list[str]()
        for name, cell in paper.cells.items():
            best = _best_choice(paper, name, runs[name])
            done = [run for run in runs[name][best] if run is not None and run.state == "done"]
            all_done[name] = done
            metric = paper.metric_of(name)
            values = [value for run in done if (value := value_of(run, metric)) is not None]
            if done and not values:
                known = sorted({key for run in done for key in run.metrics})
                told.append(f"{paper.title_of(name)}: none of its runs has {metric}{nearest_of(metric, known)}")
            others = [run for place, of in enumerate(runs[name]) if place != best for run in of]
            open_ = sum(run is None or run.state not in ("done", "failed") for run in others)
            rows.append(
                Row(
                    name,
                    cell,
                    measured=Estimate.of(values) if values else None,
                    seconds=sum(run.seconds for run in done) / len(done) if done else None,
                    missing=len(runs[name][best]) - len(values) + open_,
                    date=max((run.status.get("ended", "")[:10] for run in done), default=""),
                    choice=choices[best],
                )
            )
        return cls(paper, budget, rows, (*told, *asides(paper, all_done, costs or {})))

    def verdict(self, row: Row) -> str:
        """``reproduced (within 0.8)``, ``worse by 1.20 (tolerance 0.8)``, and whether that is within the interval over
        seeds; empty where there is no verdict."""
        tolerance = row.cell.tolerance or self.paper.tolerance
        if self.budget != "full" or row.cell.published is None or tolerance is None or row.measured is None:
            return ""
        if row.missing:
            return f"{row.missing} run{'s' if row.missing > 1 else ''} missing"
        away = row.measured.mean - row.cell.published
        if math.isnan(away):
            return "not a number"
        if abs(away) <= tolerance:
            return f"reproduced (within {tolerance:g})"
        good = (away > 0) == self.paper.more_is_better(row.name)
        shown = "" if abs(away) > (row.measured.half_width or 0.0) else ", within the interval"
        return f"{'better' if good else 'worse'} by {abs(away):.{self.paper.digits}f} (tolerance {tolerance:g}){shown}"

    def order(self) -> str:
        """Whether the cells get better in the order that the paper claims, and whether their intervals leave that open;
        empty if it claims none."""
        by_name = {row.name: row.measured for row in self.rows}
        measured = [by_name[name] for name in self.paper.order]
        if not measured:
            return ""
        claim = " > ".join(self.paper.title_of(name) for name in reversed(self.paper.order))
        known = [estimate for estimate in measured if estimate is not None]
        if len(known) < len(measured):
            return f"order {claim}: not all cells are measured"
        sign = 1 if self.paper.better == "more" else -1
        gains = [
            (sign * (b.mean - a.mean), (a.half_width or 0.0) + (b.half_width or 0.0))
            for a, b in itertools.pairwise(known)
        ]
        decisive = [gain > 0 for gain, room in gains if abs(gain) > room]
        holds = all(gain > 0 for gain, _ in gains)
        found = "holds" if holds else "does not hold"
        if all(decisive) and (not holds or len(decisive) < len(gains)):
            found += ", within the intervals"
        decides = "" if self.budget == "full" else " at this budget, which decides nothing"
        return f"order {claim}, the best first: {found}{decides}"

    @property
    def _has_intervals(self) -> bool:
        return any(row.measured is not None and row.measured.half_width is not None for row in self.rows)

    @property
    def head(self) -> list[str]:
        unit = f", {self.paper.unit}" if self.paper.unit else ""
        return ["cell", f"published{unit}", "trust", f"measured{unit}", "seeds", "s a run", "date", "verdict"]

    def cells(self) -> list[list[str]]:
        """The rows of the table."""
        digits = self.paper.digits
        return [
            [
                self.paper.title_of(row.name),
                "-" if row.cell.published is None else f"{row.cell.published:.{digits}f}",
                row.cell.trust or "-",
                "-" if row.measured is None else row.measured.text(digits),
                "0" if row.measured is None else str(row.measured.n),
                "-" if row.seconds is None else f"{row.seconds:.0f}",
                row.date or "-",
                self.verdict(row) or "-",
            ]
            for row in self.rows
        ]

    def notes(self) -> list[str]:
        """The notes below the table."""
        effort = self.paper.budgets[self.budget]
        sources = [
            f"{self.paper.title_of(row.name)}: {row.cell.source}"
            for row in self.rows
            if row.cell.published is not None and row.cell.source
        ]
        chosen = [
            f"{self.paper.title_of(row.name)}: {row.choice} is the best of {len(self.paper.best_of)} in validation"
            for row in self.rows
            if row.choice is not None and row.measured is not None
        ]
        notes = [
            f"{self.paper.metric} ({self.paper.better} is better), budget {self.budget}"
            f"{f': {effort.note}' if effort.note else ''}",
            *([f"measured: {OVER_SEEDS}"] if self._has_intervals else []),
            *chosen,
            self.order(),
            *self.asides,
            self.paper.note,
            *sources,
            "trust: A read in the paper or in its authors' or a re-implementation's own repository, B quoted elsewhere",
        ]
        if self.budget != "full":
            notes.append("a verdict is given at --budget full only")
        return [" ".join(note.split()) for note in notes if note]


def _best_choice(paper: Paper, cell: str, choices: Sequence[Sequence[Run | None]]) -> int:
    """The place of the choice whose runs were the best in validation, on average; one without a run, or with a run
    that has no finite value, comes last."""
    key, more = f"val/{paper.metric_of(cell).partition('/')[2]}", paper.more_is_better(cell)

    def merit(runs: Sequence[Run | None]) -> float:
        curves = [run.curves.get(key, []) for run in runs if run is not None and run.state == "done"]
        finite = [[value for _, value in curve if math.isfinite(value)] for curve in curves if curve]
        bests = [(max if more else min)(values, default=math.nan) for values in finite]
        mean = sum(bests) / len(bests) if bests else math.nan
        return mean if more else -mean

    merits = [merit(runs) for runs in choices]
    return max(range(len(choices)), key=lambda place: (merits[place] == merits[place], merits[place], -place))


def as_rich(reproduction: Reproduction) -> "Table":
    """For the terminal."""
    from rich.table import Table

    table = Table(box=None, title_justify="left", title=f"{reproduction.paper.title} ({reproduction.paper.source})")
    for place, name in enumerate(reproduction.head):
        table.add_column(name, justify="left" if place in (0, 2, 7) else "right", no_wrap=True)
    for row in reproduction.cells():
        table.add_row(*row)
    return table


def as_markdown(reproduction: Reproduction) -> str:
    """A page of Markdown."""
    lines = [f"# {reproduction.paper.title}", "", reproduction.paper.source, ""]
    rule = ["---"] * len(reproduction.head)
    lines += map(markdown_row, (reproduction.head, rule, *reproduction.cells()))
    return "\n".join([*lines, "", *(f"- {note}" for note in reproduction.notes())]) + "\n"


def as_csv(reproduction: Reproduction) -> str:
    """One line for each cell."""
    return csv_text([reproduction.head, *reproduction.cells()])


def as_latex(reproduction: Reproduction) -> str:
    """A ``tabular`` with booktabs' rules; the notes are comments below it."""
    rows = [[escaped(cell).replace("±", r"$\pm$") for cell in row] for row in reproduction.cells()]
    notes = "".join(f"% {note}\n" for note in reproduction.notes())
    return tabular(list(map(escaped, reproduction.head)), rows, "lrlrrrrl") + notes


FORMS = {".md": as_markdown, ".csv": as_csv, ".tex": as_latex}
