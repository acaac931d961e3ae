"""Where the targets of an attentive neural process look among the points that are known.

The weights are those of the path that gives each target features of its own (Kim et al. 2019, section 3), means over
heads; they are computed separately, and leave the model's predictions as they are.

Shapes: n functions, N points of which some are known, M places, H heads.
"""

from typing import Any

from torch import Tensor

from attelbo.attention import record_attention
from attelbo.data.batch import CONTEXT, Batch
from attelbo.models import NeuralProcess
from attelbo.models.neural_process import Points
from attelbo.networks import AttentivePath
from attelbo.training.media import Picture, painted

_FEW = 12
"""Points whose places can be written below the columns."""


def context_weights(model: NeuralProcess, context: Batch, places: Tensor) -> Tensor | None:
    """How much each of the targets at ``places`` (n, M, X) looks at each point of the context.

    Returns:
        Weights (n, H, M, N), zero where a point is not known; None for a model that averages its context.
    """
    attentive = next((path for path in model.paths if isinstance(path, AttentivePath)), None)
    if attentive is None:
        return None
    functions = Points.of(context)
    with record_attention(attentive, ("cross.attention",)) as maps:
        model.features(functions.both, functions.context, places)
    return maps["cross.attention"]


def draw_context_weights(weights: Tensor, context: Batch, places: Tensor) -> Picture:
    """A panel for each curve: rows are targets by their place, columns points of the context by theirs, and a dot is
    where both are the same.

    Args:
        weights: (n, H, M, N).
        context: curves, x (n, N, 1).
        places: of the targets, (n, M, 1), in order.
    """
    from matplotlib.figure import Figure

    assert context.segments is not None
    figure = Figure(figsize=(10.8, 6.4), dpi=120, layout="constrained")
    panels: list[Any] = [*figure.subplots(2, -(-len(weights) // 2), sharey=True).flat]
    for row, panel in enumerate(panels[: len(weights)]):
        known = context.segments[row] == CONTEXT
        x, order = context.x[row, known, 0].sort()
        shown = weights[row].mean(0)[:, known][:, order].cpu()
        bottom, top = (float(places[row, end, 0]) for end in (0, -1))
        extent = (-0.5, len(x) - 0.5, bottom, top)
        panel.imshow(
            shown.numpy(), cmap="Blues", vmin=0, origin="lower", extent=extent, aspect="auto", interpolation="nearest"
        )
        panel.plot(range(len(x)), x.cpu(), "o", color="#d1495b", markersize=2.5)
        panel.set_title(f"{len(x)} points known, at most {float(shown.max()):.2f}", loc="left", fontsize=9)
        labels = [f"{value:.1f}" for value in x.tolist()] if len(x) <= _FEW else []
        panel.set_xticks(range(len(labels)), labels)
        panel.set_xlabel("known points, by place", fontsize=8, color="#5b6270")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0, labelsize=8, colors="#5b6270")
    figure.supylabel("place of the target", fontsize=8, color="#5b6270")
    return painted(figure)
