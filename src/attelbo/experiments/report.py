"""report.html: one run on one page, made from the files in its directory alone.

The page is a single file: pictures are embedded, curves are inline SVG, nothing is fetched. It can be
written at any time, also for a run that failed or is still running: what is missing is left out.
"""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from pathlib import Path
from typing import Any

from attelbo.experiments.curves import Curve, line_chart
from attelbo.experiments.exhibits import earlier, final, image, text
from attelbo.experiments.numbers import numbers_of, remarks
from attelbo.experiments.pages import template
from attelbo.experiments.rundir import RunDirectory
from attelbo.files import read_yaml, write_atomically
from attelbo.metrics import Measure
from attelbo.training.callbacks.progress import clock_time

REPORT_FILE = "report.html"

_CHARTS = (
    ("elbo", "ELBO", "nats"),
    ("reconstruction", "Reconstruction", "nats, lower is better"),
    ("kl", "KL(q || p)", "nats"),
    ("loss", "Loss", "what is minimized"),
)


@dataclass(frozen=True, slots=True)
class Headline:
    """A number that a reader looks for first."""

    label: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A curve with what its legend says."""

    title: str
    unit: str
    svg: str
    legend: list[tuple[str, str, str]]
    """(class, label, last value)."""


def write_report(run_dir: Path) -> Path:
    """Write ``<run_dir>/report.html`` and return its path."""
    run, config_file = RunDirectory(run_dir), run_dir / "config.yaml"
    config_text = config_file.read_text(encoding="utf-8") if config_file.exists() else ""
    config = (read_yaml(config_file) if config_text else None) or {}
    status, provenance, result = (run.read(f"{name}.json") or {} for name in ("status", "provenance", "result"))
    traceback, _, reason = status.get("error", "").strip().rpartition("\n")
    media = sorted((run_dir / "media").glob("*"))
    pictures, texts = ([path for path in media if path.suffix in kinds] for kinds in ((".png", ".gif"), (".txt",)))
    page = template("report.html.j2").render(
        name=config.get("name", run_dir.absolute().parent.name),
        run_id=run_dir.absolute().name,
        state=status.get("state", "unknown"),
        facts=list(_facts(status, result)),
        reason=reason,
        traceback=traceback,
        headlines=list(_headlines(result)),
        remarks=list(remarks(result, _split(result))),
        charts=list(_charts(run.curves(), result)),
        pictures=[image(path) for path in final(pictures)],
        texts=[text(path) for path in final(texts)],
        earlier_pictures=[image(path) for path in earlier(pictures)],
        earlier_texts=[text(path) for path in earlier(texts)],
        choices=[item for item in run.choices().items() if item[1]],
        config=config_text,
        command=shlex.join(["attelbo", *provenance.get("argv", [])[1:]]) if provenance.get("argv") else "",
        provenance=list(_provenance(provenance)),
        diff=(provenance.get("git") or {}).get("diff") or "",
    )
    return write_atomically(run_dir / REPORT_FILE, page)


# -- numbers -------------------------------------------------------------------------------------------


def _headlines(result: Mapping[str, Any]) -> Iterable[Headline]:
    """The final metrics with their units, the most comparable one first."""
    split = _split(result)
    for measure, value, error in numbers_of(result, split):
        unit = measure.unit if error is None else f"± {error:.{measure.digits}f} {measure.unit}"
        note = measure.note or f"{split} split"
        yield Headline(
            _capital(measure.label),
            _number(value, measure.digits),
            unit,
            note if error is None else f"{note}; ± standard error",
        )


def _split(result: Mapping[str, Any]) -> str:
    """Whose metrics it has."""
    return next(iter(result.get("metrics", {})), "test/").partition("/")[0]


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]


def _number(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−")  # noqa: RUF001 - a minus sign, not a hyphen


def _facts(status: Mapping[str, Any], result: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Times, counts and the like, as (label, text)."""
    seconds = result.get("seconds", {})
    for name, label in (("train", "training"), ("evaluate", "evaluation")):
        if name in seconds:
            yield label, f"{seconds[name]:.1f} s" if seconds[name] < 60 else clock_time(seconds[name])
    if math.isfinite(result.get("samples_per_second", math.nan)):
        of_text = f", {result['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in result else ""
        yield "throughput", f"{result['samples_per_second']:,.0f} samples/s{of_text}"
    for key in ("epochs", "steps", "parameters"):
        if key in result:
            yield key, f"{result[key]:,}"
    if "checkpoint" in result:
        yield "weights", ", ".join(filter(None, (f"{result['checkpoint']} checkpoint", result.get("monitor"))))
    for key in ("started", "ended"):
        if key in status:
            yield key, f"{datetime.fromisoformat(status[key]):%Y-%m-%d %H:%M:%S %Z}"
    if status.get("attempts", 1) > 1:
        yield "attempts", str(status["attempts"])


def _charts(curves: Mapping[str, list[tuple[int, float]]], result: Mapping[str, Any]) -> Iterable[Chart]:
    for key, title, unit in (*_CHARTS, *_of_measures(result), *_players(curves)):
        if key == "loss" and _is_negative(curves.get("train/loss", []), curves.get("train/elbo", [])):
            continue  # the loss is the ELBO with its sign changed: nothing new to see
        lines = [
            Curve("train", "training", curves.get(f"train/{key}", [])),
            Curve("val", "validation", curves.get(f"val/{key}", [])),
        ]
        if svg := line_chart(title, lines):
            legend = [(line.kind, line.label, _number(line.points[-1][1], 2)) for line in lines if line.points]
            yield Chart(title, unit, svg, legend)


def _of_measures(result: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """A chart for each further measure of the model; not for the ELBO in another unit."""
    others = {key for key, _, _ in _CHARTS} | {"bits_per_dim"}
    for measure in starmap(Measure, result.get("measures", ())):
        if measure.key not in others:
            better = {"more": ", higher is better", "less": ", lower is better", "": ""}[measure.better]
            yield measure.key, _capital(measure.label), measure.unit + better


def _players(curves: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """A chart for the loss of each player beside the main one, such as a discriminator."""
    for key in sorted(curves):
        split, _, name = key.partition("/")
        if split == "train" and name.endswith("_loss"):
            yield name, name.replace("_", " ").capitalize(), "what this player minimizes"


def _is_negative(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> bool:
    return [step for step, _ in one] == [step for step, _ in other] and all(
        math.isclose(a, -b, rel_tol=1e-5) for (_, a), (_, b) in zip(one, other, strict=True)
    )


# -- where it comes from -------------------------------------------------------------------------------


def _provenance(provenance: Mapping[str, Any]) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """What the run was made of, (section, [(label, text)]); command and diff are shown elsewhere."""
    if provenance:
        git = dict(provenance.get("git") or {})
        if git:  # else attelbo was installed from a wheel
            git["changes"] = "uncommitted, shown below" if git.pop("diff", None) else "none"
        yield "Code", list(_flatten("", {"seed": provenance.get("seed"), "git": git}))
        yield "Data", list(_flatten("", provenance.get("data")))
        yield "Versions", list(_flatten("", provenance.get("versions")))
        yield "Machine", list(_flatten("", provenance.get("hardware")))


def _flatten(label: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{label} {key}".strip(), inner)
    elif isinstance(value, list):
        yield label, ", ".join(map(str, value)) or "none"
    elif value is not None:
        yield label, str(value)
