"""``attelbo wandb report``: a W&B report on the runs of a sweep, made from their directories.

Curves and bars are drawn by W&B from the data that were sent to it; the report selects them and groups them by the keys
that differ. The table of means and intervals is our own.
"""

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attelbo.errors import UserError
from attelbo.experiments.comparison.runs import Found, Run, find_runs
from attelbo.experiments.comparison.settings import described, differing, settings_of
from attelbo.experiments.comparison.table import Comparison, Metric, as_markdown, chosen, metrics_of
from attelbo.experiments.exhibits import final
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import write_atomically
from attelbo.training.loggers.server import require_server

FILE = "wandb-report.json"
STEP = "trainer/global_step"
"""What curves are drawn against."""
CURVES = ("val/elbo", "val/loss", "val/accuracy", "train/loss", "train/reconstruction", "train/kl")
"""Curves to show, where they exist; those by which checkpoints were chosen come first."""


@dataclass(frozen=True)
class _Sweep:
    """What the report is about."""

    runs: Sequence[Run]
    keys: Sequence[str]
    """Of the configuration: those in which settings differ."""
    metrics: Sequence[Metric]
    comparison: Comparison

    @property
    def groups(self) -> list[str]:
        """As W&B has them."""
        return list(dict.fromkeys(RunDirectory(run.path).group(run.config["name"]) for run in self.runs))

    @property
    def project(self) -> tuple[str, str | None]:
        """(project, entity) of the runs, where they name them."""
        nodes = [
            node for run in self.runs for node in run.config.get("logger", {}).values() if node and "project" in node
        ]
        return (nodes[0]["project"], nodes[0].get("entity")) if nodes else ("attelbo", None)

    @property
    def curves(self) -> list[str]:
        chosen_by = [name for run in self.runs for name in (run.result.get("monitor") or "").split()[-1:]]
        known = {key for run in self.runs for key in run.curves}
        return [key for key in dict.fromkeys([*chosen_by, *CURVES]) if key in known]

    @property
    def pictures(self) -> list[str]:
        files = [path for run in self.runs for path in final(sorted((run.path / "media").glob("*.png")))]
        return sorted({path.stem for path in files})


def report(folder: Path, metrics: Sequence[str], dry: bool) -> None:
    """Write the specification of a report on the runs in a folder, ``wandb-report.json``, and save the report at the
    server.

    Args:
        folder: that of a sweep, or of any runs that are done.
        metrics: those of the bars, by the names of ``attelbo compare``; the first few if empty.
        dry: only write the file.

    Raises:
        UserError: no runs, none that is done, no such metric, no server, or the server refuses.
    """
    sweep = _read(folder, metrics)
    project, entity = sweep.project
    made = compose(sweep, project, entity or "")
    file = folder / FILE
    made.id = _saved_before(file)
    _write(made, file)
    sys.stdout.write(f"specification: {file}\n")
    if dry:
        return
    require_server("wandb report", f"what it would be is in {file}")
    from wandb.errors import Error

    try:
        if not entity:
            import wandb

            made.entity = wandb.Api().default_entity or ""
        made.save()
    except (Error, ValueError, TypeError, KeyError) as error:
        raise UserError(f"wandb report: the server refuses: {error}; what it would be is in {file}") from error
    _write(made, file)
    sys.stdout.write(f"report: {made.url}\n")


def _saved_before(file: Path) -> str:
    """The id of the report that the same command saved before and now updates."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError):
        return ""


def _write(made: Any, file: Path) -> None:
    content = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        write_atomically(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"wandb report: {file} cannot be written: {error.strerror}") from error


def _read(folder: Path, metrics: Sequence[str]) -> _Sweep:
    if not folder.is_dir():
        raise UserError(f"wandb report: {folder}: no such folder")
    found = find_runs([str(folder)])
    if not found.done:
        raise UserError(f"wandb report: none of the {len(found.unfinished)} runs in {folder} is done")
    every = metrics_of(found.done)
    columns = chosen(every, metrics)
    # W&B knows the configuration, not the groups that it was chosen from.
    plain = [replace(run, choices={}) for run in found.done]
    keys = differing([described(run) for run in plain])
    comparison = Comparison(settings_of(found.done), columns, every, Found(found.done, [], 0))
    return _Sweep(found.done, keys, columns, comparison)


def compose(sweep: _Sweep, project: str, entity: str) -> Any:
    """The report, not saved; no server is contacted."""
    wr = _parts()

    n, seeds = len(sweep.runs), sorted({run.seed for run in sweep.runs})
    return wr.Report(
        project=project,
        entity=entity,
        title=" ".join(dict.fromkeys([*(run.config["name"] for run in sweep.runs), *sweep.groups]))[:128],
        description=f"{n} runs, {len(sweep.comparison.settings)} settings, seeds {', '.join(map(str, seeds))}",
        width="fluid",
        blocks=[
            wr.H2("Means over seeds"),
            wr.MarkdownBlock(as_markdown(sweep.comparison)),
            wr.H2("Settings"),
            wr.PanelGrid(runsets=[_runset(sweep, by=sweep.keys)], panels=_of_settings(sweep)),
            wr.H2("Runs"),
            wr.PanelGrid(runsets=[_runset(sweep)], panels=_of_runs(sweep)),
        ],
    )


def _parts() -> Any:
    """The module of the parts of a report, which is not declared as public."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, about pydantic
        from wandb_workspaces.reports import v2
    return v2


def _runset(sweep: _Sweep, by: Sequence[str] = ()) -> Any:
    """The runs of the sweep, without later evaluations; its table has what differs and what was measured."""
    wr = _parts()

    groups = ", ".join(repr(group) for group in sweep.groups)
    columns = [f"config:{_in_config(key)}" for key in (*sweep.keys, "seed")]
    return wr.Runset(
        name=", ".join(by) or "runs",
        filters=f"Metric('Group') in [{groups}] and Metric('JobType') != 'evaluate'",
        groupby=[f"config.{key}" for key in by],
        pinned_columns=["run:displayName", *columns, *(f"summary:{metric.key}" for metric in sweep.metrics)],
    )


def _of_settings(sweep: _Sweep) -> list[Any]:
    """Curves with the mean and the standard error of each setting, and a bar for each metric."""
    wr = _parts()

    curves = [
        wr.LinePlot(
            title=key, x=STEP, y=[key], title_x="optimizer steps", groupby_aggfunc="mean", groupby_rangefunc="stderr",
            layout=_tile(place),
        )
        for place, key in enumerate(sweep.curves)
    ]  # fmt: skip
    bars = [
        wr.BarPlot(
            title=metric.label, metrics=[metric.key], title_x=metric.unit, groupby_aggfunc="mean",
            groupby_rangefunc="stderr", layout=_tile(place),
        )
        for place, metric in enumerate(sweep.metrics, len(curves))
    ]  # fmt: skip
    return curves + bars


def _of_runs(sweep: _Sweep) -> list[Any]:
    """Every run as a line through its keys and metrics, the differences in its configuration, and its pictures."""
    wr = _parts()

    keys = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in sweep.keys]
    results = [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(metric.key), display_name=metric.label)
        for metric in reversed(sweep.metrics)
    ]
    panels = [
        wr.ParallelCoordinatesPlot(columns=[*keys, *results], layout=wr.Layout(0, 0, 24, 10)),
        wr.RunComparer(diff_only="split", layout=wr.Layout(0, 10, 24, 10)),
    ]
    if sweep.pictures:
        pictures = wr.MediaBrowser(media_keys=sweep.pictures, num_columns=3, layout=wr.Layout(0, 20, 24, 14))
        panels.append(pictures)
    return panels


def _tile(place: int) -> Any:
    """Three panels in a row of 24 columns."""
    wr = _parts()

    return wr.Layout(8 * (place % 3), 7 * (place // 3), 8, 7)


def _in_config(key: str) -> str:
    """A key as W&B names it in its table: ``model.value.latent_dim``."""
    first, *rest = key.split(".")
    return ".".join([first, "value", *rest])
