"""The comparison as one self-contained HTML page: it works from file:// and fetches nothing.

Everything that it shows is in it: numbers and curves as JSON, from which its own script draws, and pictures of one run
of each setting, as many as there is room for.
"""

import base64
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attelbo.errors import UserError
from attelbo.experiments.comparison.runs import Run
from attelbo.experiments.comparison.settings import Setting
from attelbo.experiments.comparison.table import COSTS, Comparison, as_text, value_of
from attelbo.experiments.exhibits import PIXELS, final, spread
from attelbo.experiments.pages import template

ROOM = 6 * 2**20
"""Bytes of pictures in a page: with 50 runs it stays below 10 MB."""
_Shown = tuple[str, int]
"""A picture as a data URI, and the seed of its run."""
POINTS = 100
"""Points of a curve, at most."""


def page(comparison: Comparison, statements: Sequence[str] = ()) -> str:
    """The page.

    Args:
        comparison: what it shows.
        statements: about pairs of settings.
    """
    found = comparison.found
    pictures = _pictures(comparison.order)
    content = {
        "keys": comparison.columns,
        "brief": comparison.brief,
        "metrics": [_metric(metric) for metric in (*comparison.every, *COSTS)],
        "pixels": PIXELS,
        "shown": [metric.key for metric in (*comparison.metrics, COSTS[0])],
        "settings": [
            _setting(comparison, setting, shown) for setting, shown in zip(comparison.order, pictures, strict=True)
        ],
    }
    return template("compare.html.j2").render(
        title=_title(comparison),
        n_settings=len(comparison.settings),
        n_runs=len(found.done),
        repeated=found.repeated,
        unfinished=[(run.path, run.state, run.reason) for run in found.unfinished],
        notes=comparison.notes,
        statements=statements,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        # No value ends the script that it stands in.
        content=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
    )


def _title(comparison: Comparison) -> str:
    names = dict.fromkeys(str(run.config["name"]) for setting in comparison.settings for run in setting.runs)
    return ", ".join(names) if len(names) <= 2 else f"{next(iter(names))} and {len(names) - 1} more"


def _metric(metric: Any) -> dict[str, Any]:
    return {"key": metric.key, "label": metric.label, "unit": metric.unit, "better": metric.better}


def _setting(comparison: Comparison, setting: Setting, pictures: Mapping[str, _Shown]) -> dict[str, Any]:
    numbers = {}
    for metric in (*comparison.every, *COSTS):
        estimate = comparison.estimate(setting, metric)
        if estimate is not None and math.isfinite(estimate.mean):
            numbers[metric.key] = [estimate.mean, estimate.half_width, as_text(estimate, metric)]
    return {
        "label": setting.label,
        "values": comparison.told(setting),
        "words": " ".join(f"{key}={value}" for key, value in setting.values.items()),
        "numbers": numbers,
        "seeds": len(setting.seeds),
        "runs": [
            {
                "seed": run.seed,
                "path": str(run.path),
                "numbers": {
                    metric.key: value
                    for metric in (*comparison.every, *COSTS)
                    if (value := value_of(run, metric.key)) is not None and math.isfinite(value)
                },
            }
            for run in setting.runs
        ],
        "curves": _curves(setting),
        "pictures": pictures,
    }


def _curves(setting: Setting) -> dict[str, list[list[float]]]:
    """Metric -> [steps, means, smallest, largest over the seeds]."""
    collected: dict[str, dict[int, list[float]]] = {}
    points = (
        (name, step, value)
        for run in setting.runs
        for name, curve in _curves_of(run).items()
        if name.startswith("val/") or name == "train/loss"
        for step, value in curve
        if math.isfinite(value)
    )
    for name, step, value in points:
        collected.setdefault(name, {}).setdefault(step, []).append(value)
    curves = {}
    for name, by_step in collected.items():
        most = max(map(len, by_step.values()))
        steps = sorted(step for step, values in by_step.items() if len(values) == most)
        steps = [steps[i] for i in spread(len(steps), POINTS)]
        of = [by_step[step] for step in steps]
        curves[name] = [
            [float(step) for step in steps],
            *([float(f"{summary(values):.6g}") for values in of] for summary in (statistics.fmean, min, max)),
        ]
    return curves


def _curves_of(run: Run) -> Mapping[str, Sequence[tuple[int, float]]]:
    """None, with a line on the standard error, of a run whose metrics.csv is damaged: the table shows the rest."""
    try:
        return run.curves
    except UserError as error:
        sys.stderr.write(f"curves left out: {error}\n")
        return {}


def _pictures(settings: Sequence[Setting]) -> list[dict[str, _Shown]]:
    """Each setting's pictures by name, from its first run that has them: in the order of a report, as long as there is
    room. Pictures with a hyphen in their name, of earlier epochs or of later commands, are left out."""
    media = [
        [(path, run) for run in reversed(setting.runs) for path in run.path.glob("media/*.png")] for setting in settings
    ]
    files = [{path.stem: (path, run.seed) for path, run in found if "-" not in path.stem} for found in media]
    shown: list[dict[str, _Shown]] = [{} for _ in settings]
    room = ROOM
    for name in dict.fromkeys(path.stem for path in final(path for of in files for path, _ in of.values())):
        for place, (path, seed) in ((place, of[name]) for place, of in enumerate(files) if name in of):
            if (size := path.stat().st_size * 4 // 3) <= room:
                shown[place][name] = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", seed
                room -= size
    return shown
