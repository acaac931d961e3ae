"""The tables behind disentanglement scores: what each latent tells about each factor, as JSON and as a picture.

Shapes: D latent dimensions, K factors that vary.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attelbo.files import write_atomically
from attelbo.metrics import Disentanglement
from attelbo.metrics.disentanglement import concentrations, gaps
from attelbo.training.media import Picture, painted, save_png

_MOST_LATENTS = 32
"""Latents in the picture: those that tell most about any factor. The file has all of them."""


class Tables(NamedTuple):
    """What was found of a model's latents."""

    factors: list[str]
    """The names of those that vary, K."""
    representation: str
    of: str
    """The rows that were measured, for the title."""
    found: Disentanglement

    @property
    def scores(self) -> dict[str, float]:
        return self.found.scores


def write_tables(tables: Tables, path: Path) -> Picture:
    """Draw the tables to ``path``, a PNG file, and write them as JSON beside it; the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path.with_suffix(".json"), _as_json(tables))
    picture = _drawn(tables)
    save_png(picture, path)
    return picture


def _as_json(tables: Tables) -> str:
    """One key per line; tables as lists with a row for each latent."""
    found = tables.found
    content: dict[str, Any] = {
        "factors": tables.factors,
        "representation": tables.representation,
        "information": found.information,
        "predictability": found.predictability,
        "importance": found.importance,
        "mig_by_factor": gaps(found.information),
        "sap_by_factor": gaps(found.predictability),
        "dci_completeness_by_factor": concentrations(found.importance.T),
        "dci_informativeness_by_factor": found.accuracies,
        "dci_disentanglement_by_latent": concentrations(found.importance),
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(_plain(value))}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return [[round(number, 6) for number in row] if isinstance(row, list) else round(row, 6) for row in value.tolist()]


def _drawn(tables: Tables) -> Picture:
    """Three tables side by side, latents below each other; below each factor its own score, beside each latent that
    of DCI."""
    from matplotlib.figure import Figure

    found, n = tables.found, len(tables.found.importance)
    shown = torch.arange(n)
    if n > _MOST_LATENTS:
        shown = found.information.amax(1).topk(_MOST_LATENTS).indices.sort().values
    importance = concentrations(found.importance)[shown]
    panels = [
        ("mutual information, of what there is", "MIG", "mig", found.information, gaps(found.information)),
        ("predictability", "SAP", "sap", found.predictability, gaps(found.predictability)),
        ("importance", "DCI completeness", "dci_completeness", found.importance, concentrations(found.importance.T)),
    ]
    # In inches; a layout of matplotlib, which measures every text several times, would take most of the time.
    panel_width, left, gap, right, above, below = max(0.75 * len(tables.factors), 2.4), 0.5, 0.35, 1.5, 0.75, 0.75
    width, height = left + 3 * panel_width + 2 * gap + right, 0.24 * len(shown) + 0.4 + above + below
    figure = Figure(figsize=(width, height), dpi=120)
    inside = {"left": left / width, "right": 1 - right / width, "bottom": below / height, "top": 1 - above / height}
    grid = figure.subplots(1, 3, sharey=True, gridspec_kw={**inside, "wspace": gap / panel_width})
    shades: Any = None
    for panel, (title, label, score, table, by_factor) in zip(grid, panels, strict=True):
        shades = panel.imshow(
            table[shown].numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto"
        )
        panel.set_title(title, fontsize=10)
        panel.set_xticks(
            range(len(tables.factors)),
            [f"{name}\n{value:.2f}" for name, value in zip(tables.factors, by_factor.tolist(), strict=True)],
            parse_math=False,
        )
        panel.set_yticks(range(len(shown)), [f"z{place + 1}" for place in shown.tolist()])
        panel.set_xlabel(f"{label} {tables.scores[score]:.3f}", color="#5b6270")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0, labelsize=9)
    beside = grid[-1].secondary_yaxis("right")
    beside.set_yticks(range(len(shown)), [f"{value:.2f}" for value in importance.tolist()])
    beside.tick_params(length=0, labelsize=9)
    beside.spines[:].set_visible(False)
    beside.set_ylabel("DCI disentanglement", color="#5b6270")
    less = "" if len(shown) == n else f", {len(shown)} of {n} latents"
    title = f"Latents and factors, {tables.of}{less}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    scale = figure.add_axes((1 - 0.65 / width, inside["bottom"], 0.12 / width, inside["top"] - inside["bottom"]))
    figure.colorbar(shades, cax=scale).outline.set_visible(False)
    return painted(figure)
