"""From laps to ratios, from ratios to a Markdown table and a JSON file."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.turns import Lap


def compare(ours: Sequence[Lap], theirs: Sequence[Lap]) -> dict[str, Any]:
    """How fast we are, and how fast in relation to them: medians over the rounds, with the smallest and the largest.

    A ratio is made within a round, from two laps that were run one after the other; above 1 we are faster.
    """
    return {
        "train": _compare([(lap.rows, lap.train) for lap in ours], [(lap.rows, lap.train) for lap in theirs]),
        "whole": _compare([(lap.rows, lap.whole) for lap in ours], [(lap.rows, lap.whole) for lap in theirs]),
        "val_elbo": {"ours": ours[-1].val_elbo, "theirs": theirs[-1].val_elbo},
    }


def _compare(ours: list[tuple[int, Any]], theirs: list[tuple[int, Any]]) -> dict[str, Any]:
    def rates(laps: list[tuple[int, Any]], clock: Literal["wall", "cpu"]) -> list[float]:
        return [rows / getattr(span, clock) for rows, span in laps]

    def ratio(clock: Literal["wall", "cpu"]) -> dict[str, float]:
        return spread([a / b for a, b in zip(rates(ours, clock), rates(theirs, clock), strict=True)])

    return {
        "rows_per_second": {"ours": spread(rates(ours, "wall")), "theirs": spread(rates(theirs, "wall"))},
        "ratio": ratio("wall"),
        "cpu_ratio": ratio("cpu"),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def markdown(result: dict[str, Any]) -> str:
    """The table, and below it what must be known to read it."""
    lines = [
        "| network, batch 100 | threads | rounds | attelbo, samples/s | bare loop | ratio: training | processor time "
        "| ratio: with validation and checkpoints | processor time | val ELBO, ours / bare |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["results"]:
        train, whole, elbo = row["train"], row["whole"], row["val_elbo"]
        threads = row["task"]["threads"] or f"default ({row['threads']})"
        cells = [
            row["task"]["name"],
            str(threads),
            str(len(row["laps"]["bare"]) - 1),
            f"{train['rows_per_second']['ours']['median']:,.0f}",
            f"{train['rows_per_second']['theirs']['median']:,.0f}",
            _ratio(train["ratio"]),
            _ratio(train["cpu_ratio"]),
            _ratio(whole["ratio"]),
            _ratio(whole["cpu_ratio"]),
            f"{elbo['ours']:.1f} / {elbo['theirs']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_footnotes(result)])


def _ratio(values: dict[str, float]) -> str:
    return f"{values['median']:.3f} ({values['min']:.2f}-{values['max']:.2f})"


def _footnotes(result: dict[str, Any]) -> list[str]:
    hardware, versions, git = result["hardware"], result["versions"], result["git"]
    before, after = (f"{result['load_average'][at][0]:.1f}" for at in ("before", "after"))
    names = ("python", "torch", "lightning", "hydra-core")
    return [
        f"{result['date']} UTC, {hardware.get('cpu')}, {hardware.get('cores')} cores, load average {before} before and "
        f"{after} after; " + ", ".join(f"{name} {versions.get(name)}" for name in names) + "; "
        f"attelbo {git['sha'][:7] + ('+' if git['changed'] else '') if git else versions.get('attelbo')}.",
        f"{result['data']}, medians over rounds of one epoch each (smallest-largest), the first epoch left out; "
        f"{result['seconds']:.0f} s in all.",
    ]


def save(result: dict[str, Any], folder: Path) -> Path:
    """Write the result as JSON, named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
