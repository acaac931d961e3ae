"""The table of a comparison, and the forms it is written in: terminal, CSV, Markdown, LaTeX."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from attelbo.errors import UserError
from attelbo.experiments.comparison.runs import Found, Run
from attelbo.experiments.comparison.settings import Setting
from attelbo.experiments.comparison.statistics import Estimate, Paired, paired
from attelbo.experiments.listing import nearest_of
from attelbo.files import csv_text

if TYPE_CHECKING:
    from rich.table import Table

UDR = "test/udr"
"""How far each seed of a setting agrees with the others: computed from the same pairs of seeds, these values are not
independent, so there is neither an interval nor a test of them."""
AT_FIRST = 5
"""Metrics of a table where none was asked for."""
OVER_SEEDS = "mean ± 95 % interval over seeds"
"""What its numbers are."""
MOST_KEYS = 8
"""Keys that get columns of their own; where there are more, a label stands for them."""


@dataclass(frozen=True)
class Metric:
    """A column."""

    key: str
    """``test/nll``, or one of the costs."""
    label: str
    unit: str
    digits: int
    better: str = ""
    """``more``, ``less``, or nothing."""

    @property
    def head(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit and len(self.unit) <= 16 else self.label


COSTS = (
    Metric("seconds", "time", "s", 1, "less"),
    Metric("parameters", "parameters", "", 0),
)
"""What every run has beside its metrics."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Settings and the metrics they are compared by."""

    settings: Sequence[Setting]
    metrics: Sequence[Metric]
    """Those of the table; the first is the one that sorts it."""
    every: Sequence[Metric]
    """All that any run has."""
    found: Found
    notes: Sequence[str] = ()
    """Notes on its columns, printed below the table."""

    @property
    def keys(self) -> list[str]:
        """The keys in which the settings differ."""
        return list(self.settings[0].values)

    @property
    def brief(self) -> bool:
        """Whether labels stand for the keys, which are too many to be columns."""
        return len(self.keys) > MOST_KEYS

    @property
    def columns(self) -> list[str]:
        """The heads of the columns that tell a setting."""
        return ["setting"] if self.brief else self.keys or ["setting"]

    def told(self, setting: Setting) -> list[str]:
        """What stands in these columns."""
        return [setting.label] if self.brief else list(setting.values.values()) or [setting.label]

    @cached_property
    def order(self) -> list[Setting]:
        """The settings, the best first where it is known what is better; else as they were found."""
        if not self.metrics or not self.metrics[0].better:
            return list(self.settings)
        first = self.metrics[0]
        sign = -1 if first.better == "more" else 1

        def rank(setting: Setting) -> float:
            estimate = self.estimate(setting, first)
            return math.inf if estimate is None or math.isnan(estimate.mean) else sign * estimate.mean

        return sorted(self.settings, key=rank)

    @staticmethod
    def estimate(setting: Setting, metric: Metric) -> Estimate | None:
        """The mean over the seeds that have the metric."""
        values = list(by_seed(setting.runs, metric.key).values())
        if metric.key == UDR and values:
            return Estimate(fmean(values), None, len(values))
        return Estimate.of(values) if values else None

    def paired(self, a: Setting, b: Setting, metric: Metric) -> Paired | None:
        """The difference over the seeds that two settings share."""
        return paired(by_seed(a.runs, metric.key), by_seed(b.runs, metric.key))

    def cells(self, text: Callable[[Estimate, Metric], str]) -> list[list[str]]:
        """The rows of the table: values of the keys, number of seeds, metrics."""
        return [
            [
                *self.told(setting),
                str(len(setting.seeds)),
                *("-" if (e := self.estimate(setting, m)) is None else text(e, m) for m in (*self.metrics, COSTS[0])),
            ]
            for setting in self.order
        ]

    @property
    def head(self) -> list[str]:
        return [*self.columns, "seeds", *(metric.head for metric in (*self.metrics, COSTS[0]))]


def value_of(run: Run, key: str) -> float | None:
    """A metric or a cost of a run."""
    if key == "seconds":
        return run.seconds
    value = run.result.get(key) if key == "parameters" else run.metrics.get(key)
    return None if value is None else float(value)


def by_seed(runs: Sequence[Run], key: str) -> dict[int, float]:
    """Seed -> a metric or a cost, the mean where several runs have the seed: these are not independent, and an interval
    over seeds must not count them as such."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if (value := value_of(run, key)) is not None:
            values.setdefault(run.seed, []).append(value)
    return {seed: sum(of_seed) / len(of_seed) for seed, of_seed in values.items()}


def metrics_of(runs: Sequence[Run]) -> list[Metric]:
    """All metrics that the runs have, in the order and with the names of their own tables; those that most runs lack
    come last. A unit that is not that of all of them, such as ``of 16 latent dimensions``, is left out."""
    found: dict[str, list[Metric]] = {}
    for run in runs:
        known = {measure[0]: measure for measure in run.result["measures"]}
        names = [*known, *(name for key in run.metrics if (name := key.partition("/")[2]) not in known)]
        splits = dict.fromkeys(key.partition("/")[0] for key in run.metrics)
        for name in names:
            for split in splits:
                key = f"{split}/{name}"
                if key not in run.metrics or name.endswith("_std_error"):
                    continue
                _, label, unit, digits, _, better = known.get(name, (name, key, "", 4, "", ""))
                label = label if split == "test" else f"{split} {label}"
                found.setdefault(key, []).append(Metric(key, label, unit, digits, better))
    order = sorted(found.values(), key=lambda same: 2 * len(same) < len(runs))
    return [same[0] if len({m.unit for m in same}) == 1 else replace(same[0], unit="") for same in order]


def conditions(settings: Sequence[Setting], metrics: Sequence[Metric]) -> list[str]:
    """Notes on metrics that are given something, such as the label, in some settings only."""
    told: dict[tuple[str, str], list[str]] = {}
    for metric in metrics:
        given = {
            setting.label: measure[4].partition(";")[0]
            for setting in settings
            for measure in setting.runs[0].result["measures"]
            if metric.key == f"test/{measure[0]}"
        }
        if len(set(given.values())) > 1:
            for label, what in given.items():
                if what.startswith("given "):
                    told.setdefault((label, what), []).append(metric.label)
    return [
        f"{', '.join(labels)} of {setting}: {what}, not comparable with those that are not"
        for (setting, what), labels in told.items()
    ]


def chosen(every: Sequence[Metric], asked: Sequence[str]) -> list[Metric]:
    """The metrics with these names (``test/nll``, or ``nll`` for the test split), or the first few.

    Raises:
        UserError: no run has one of them.
    """
    by_name = {metric.key: metric for metric in every}
    by_name |= {key.removeprefix("test/"): metric for key, metric in by_name.items() if key.startswith("test/")}
    for name in asked:
        if name not in by_name:
            raise UserError(f"--metric {name}: no such metric{nearest_of(name, by_name)}")
    return [by_name[name] for name in dict.fromkeys(asked)] or list(every[:AT_FIRST])


# -- the forms -----------------------------------------------------------------------------------------


def as_text(estimate: Estimate, metric: Metric) -> str:
    """A mean with its interval, in the metric's digits."""
    return f"{estimate.mean:,.0f}" if metric.digits == 0 and estimate.n == 1 else estimate.text(metric.digits)


def as_rich(comparison: Comparison) -> "Table":
    """For the terminal."""
    from rich.table import Table

    table = Table(box=None, title_justify="left", title=OVER_SEEDS)
    n_keys, width = len(comparison.columns), 80 if comparison.brief else 40
    for place, name in enumerate(["#", *comparison.head]):
        is_key = 0 < place <= n_keys
        table.add_column(
            name, justify="left" if is_key else "right", no_wrap=not is_key, max_width=width if is_key else None
        )
    for place, row in enumerate(comparison.cells(as_text), 1):
        table.add_row(str(place), *row)
    return table


def as_csv(comparison: Comparison) -> str:
    """One line for each setting; of each metric the mean, half the width of its interval, and the number of seeds."""
    metrics = (*comparison.every, *COSTS)
    heads = [name for m in metrics for name in (m.key, f"{m.key}_half_width", f"{m.key}_n")]
    rows = [[*(comparison.keys or ["setting"]), *heads]]
    for setting in comparison.order:
        row = list(setting.values.values()) or [setting.label]
        for metric in metrics:
            e = comparison.estimate(setting, metric)
            row += (
                ["", "", "0"]
                if e is None
                else [repr(e.mean), "" if e.half_width is None else repr(e.half_width), str(e.n)]
            )
        rows.append(row)
    return csv_text(rows)


def runs_as_csv(comparison: Comparison) -> str:
    """One line for each run: its setting, seed, directory, and every metric; empty where it has none."""
    metrics = (*comparison.every, *COSTS)
    rows: list[list[Any]] = [[*(comparison.keys or ["setting"]), "seed", "run", *(metric.key for metric in metrics)]]
    for setting in comparison.order:
        for run in setting.runs:
            values = [value_of(run, metric.key) for metric in metrics]
            numbers = ["" if value is None else repr(value) for value in values]
            rows.append([*(setting.values.values() or [setting.label]), run.seed, run.path, *numbers])
    return csv_text(rows)


def as_markdown(comparison: Comparison) -> str:
    """A table of GitHub's kind, and the notes below it."""
    rule = ["---"] * len(comparison.columns) + ["---:"] * (len(comparison.metrics) + 2)
    lines = [*map(markdown_row, (comparison.head, rule, *comparison.cells(as_text)))]
    return "\n".join([*lines, "", *(f"- {note}" for note in (OVER_SEEDS, *comparison.notes))]) + "\n"


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table, in which a | is no border."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def escaped(text: str) -> str:
    """Text as LaTeX reads it."""
    return "".join(_SPECIAL.get(c, r"\textbackslash{}" if c == "\\" else c) for c in text)


def tabular(head: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> str:
    """A ``tabular`` with booktabs' rules, of cells that are LaTeX."""
    lines = [" & ".join(row) + r" \\" for row in rows]
    top = [f"\\begin{{tabular}}{{{alignment}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    return "\n".join([*top, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_latex(comparison: Comparison) -> str:
    """See :func:`tabular`; the notes are comments below it."""

    def number(estimate: Estimate, metric: Metric) -> str:
        return f"${as_text(estimate, metric).replace('±', chr(92) + 'pm').replace(',', '{,}')}$"

    n_keys = len(comparison.columns)
    rows = [[*map(escaped, row[:n_keys]), *row[n_keys:]] for row in comparison.cells(number)]
    table = tabular(list(map(escaped, comparison.head)), rows, "l" * n_keys + "r" * (len(comparison.metrics) + 2))
    return table + "".join(f"% {note}\n" for note in (OVER_SEEDS, *comparison.notes))
