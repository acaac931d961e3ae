"""Length generalization: a model of tokens on rows of other lengths than it was trained on.

The data say what a row's length is (``ResidentDataModule.at_length``): tokens in a window of text, digits to be
sorted. Windows of a text do not overlap, so that each token but the very first is predicted once and all lengths are
measured on the same tokens (the paper's nonoverlapping evaluation); the longer the windows, the fewer tokens are near
the beginning of one. For tasks each length has as many questions, of its own.

The weights are those that were trained; positions that are computed (rotary, sinusoidal, linear biases, buckets of
distances) extend to any length, positions with learned weights end with these. Rotary ones can be stretched by the
ratio of the lengths.

Source: Press, Smith & Lewis 2022, "Train Short, Test Long: Attention with Linear Biases Enables Input Length
Extrapolation".

Units: nats for each predicted token.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attelbo.attention import Rotary
from attelbo.data import ResidentDataModule
from attelbo.data.batch import Evaluated
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.splits import split_key
from attelbo.experiments.settings import Evaluation, Stretched
from attelbo.files import csv_text, write_atomically
from attelbo.metrics import Measure
from attelbo.models import LanguageModel, Model, build_model
from attelbo.training.media import Picture, painted, save_png

Config = Mapping[str, Any]


class Lengths(NamedTuple):
    """What was found."""

    trained: int
    """The length of the rows that were trained on."""
    of: str
    """What was measured, for the title."""
    measures: Sequence[Measure]
    """The model's own."""
    rows: Sequence[Mapping[str, float]]
    """For each length it, the number of predicted tokens and the values of these measures."""

    def metrics(self, split: Evaluated) -> dict[str, float]:
        """``<split>/<measure>_at_<length>``."""
        keys = [measure.key for measure in self.measures]
        return {
            f"{split_key(split)}/{key}_at_{row['length']:.0f}": row[key]
            for row in self.rows
            for key in keys
            if key in row
        }

    def shown(self) -> list[Measure]:
        """One for each length: the first of the model's own, the others in its note."""
        first, *others = self.measures
        return [
            first._replace(
                key=f"{first.key}_at_{row['length']:.0f}",
                label=f"{first.label} at {row['length']:,.0f}",
                note=", ".join(f"{each.label} {row[each.key]:.{each.digits}f}" for each in others if each.key in row),
            )
            for row in self.rows
        ]


def check_lengths(
    settings: Evaluation, model: Model, data: ResidentDataModule, config: Config, split: Evaluated = "test"
) -> None:
    """Check that a model and its data can be brought to these lengths; no row is read.

    Raises:
        ConfigError: one of them cannot; the message begins with the key.
    """
    for length in settings.lengths or ():
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn are not used
            of_length(model, config, data, length, settings.stretched, split)


@torch.inference_mode()
def evaluate_lengths(
    model: Model,
    data: ResidentDataModule,
    conditions: Conditions,
    config: Config,
) -> Lengths:
    """The model's own measures on a split in rows of each length, with about as many tokens in a batch as at its own.

    Raises:
        ConfigError: see :func:`check_lengths`.
    """
    assert isinstance(model, LanguageModel)
    assert data.length is not None
    split, settings, device = conditions.split, conditions.settings, conditions.device
    rows: list[dict[str, float]] = []
    for length in settings.lengths or ():
        other, resized = of_length(model, config, data, length, settings.stretched, split)
        other = other.to(device).eval()
        at_a_time = max(1, settings.batch_size * data.length // max(length, data.length))
        for i, index in enumerate(torch.arange(resized.n_rows(split), device=device).split(at_a_time)):
            conditions.seed_noise("evaluation", i)
            other.evaluation_step(resized.materialize(index, split))
        tokens = int(other.scores.tokens)
        found = {name: float(value) for name, value in other.evaluation_results().items()}
        rows.append({"length": length, "tokens": tokens, **found})
    stretched = f", rotary {settings.stretched} stretched" if settings.stretched else ""
    of = f"{data.spec.name}, {split_key(split)} split{stretched}"
    return Lengths(data.length, of, model.measures, rows)


def of_length(
    model: Model, config: Config, data: ResidentDataModule, length: int, stretched: Stretched | None, split: Evaluated
) -> tuple[LanguageModel, ResidentDataModule]:
    """A model, and one split of its data, for rows of another length; the same model where these are not longer.

    Raises:
        ConfigError: not a model of tokens, data without other lengths, or a model with weights for too few places.
    """
    key = f"lengths={length}"
    if not isinstance(model, LanguageModel) or data.length is None:
        raise ConfigError(f"{key}: rows of another length are for models of tokens, of a text or a task, as data=sort")
    position = model.embedding.position
    if stretched and not isinstance(position, Rotary):
        raise ConfigError(f"stretched={stretched}: only rotary positions are, model/position=rope")
    try:
        resized = data.at_length(length, split)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    n_tokens = resized.spec.shape[0]
    ratio = n_tokens / data.spec.shape[0]
    if ratio <= 1:
        return model, resized
    node = dict(config["model"])
    if node.get("context") is not None:
        node["context"] = max(node["context"], n_tokens)
    if stretched:
        was = node["position"].get("stretch", 1.0)
        node["position"] = {**node["position"], "stretch": ratio * was, "stretched": stretched}
    other = build_model({**config, "model": node}, resized)
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"{key}: this model has weights for {data.spec.shape[0]} places in a row, not for {n_tokens}; those of "
            "model/position=alibi, rope, xpos, relative_bias, continuous_bias, contextual or sinusoidal are for any"
        ) from error
    assert isinstance(other, LanguageModel)
    return other, resized


def write_lengths(found: Lengths, path: Path) -> Picture:
    """Draw the curves to ``path``, a PNG file, and write the rows as CSV beside it; the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(found.rows[0])
    rows = ([row[name] if isinstance(row[name], int) else f"{row[name]:.7g}" for name in names] for row in found.rows)
    write_atomically(path.with_suffix(".csv"), csv_text([names, *rows]))
    picture = _drawn(found)
    save_png(picture, path)
    return picture


def _drawn(found: Lengths) -> Picture:
    """The first of the measures over the length and, where there are answers, the share of those that are right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    rows = sorted(found.rows, key=lambda row: row["length"])
    lengths = [int(row["length"]) for row in rows]
    exact = [measure for measure in found.measures[1:] if measure.key == "exact" and measure.key in rows[0]]
    panels = [found.measures[0], *exact]
    figure = Figure(figsize=(4.6 * len(panels) + 0.6, 3.6), dpi=120, layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.plot(lengths, [row[measure.key] for row in rows], color="#3b6fb6", marker="o", markersize=4)
        axes.axvline(found.trained, color="#5b6270", linewidth=1, linestyle="--")
        axes.annotate(
            "trained", (found.trained, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
            textcoords="offset points", fontsize=8, color="#5b6270",
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("length of a row")
        axes.set_ylabel(f"{measure.label}, {measure.unit}")
        axes.grid(color="#e6e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=9, colors="#5b6270")
    figure.suptitle(f"Other lengths: {found.of}", x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    return painted(figure)
