"""Which mixtures a model sees in sets of points.

Shapes: n sets, N points in the plane, K components.
"""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.models import Clustering, Mixture, SetModel
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import POINT_OPACITY, Picture, label_colors, painted

_STDS = 2
"""Standard deviations that an ellipse reaches."""


class Clusters(Exhibit):
    """``clusters``: sets of points in the plane, each point in the color of the component that it most probably comes
    from; ellipses reach two standard deviations, as dark as the component is heavy.

    Args:
        n_sets: sets that are shown.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n_sets: int = 8, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n_sets=n_sets)
        self.n_sets = n_sets

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, SetModel) and isinstance(model.head, Clustering) and data.spec.shape[-1] == 2

    def works(self, model: SetModel, data: ExhibitedData) -> dict[str, Picture]:
        assert isinstance(model.head, Clustering)
        batch = self.rows(data, self.n_sets, model.device)
        there = torch.ones_like(batch.x[..., 0], dtype=torch.bool) if batch.segments is None else batch.segments >= 0
        return {"clusters": draw_mixtures(batch.x, there, model.head.mixture(model(batch.x, there)))}


def draw_mixtures(x: Tensor, there: Tensor, mixture: Mixture) -> Picture:
    """A panel for each set.

    Args:
        x: points (n, N, 2).
        there: which of them there are, (n, N).
        mixture: one for each set.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    component = mixture.joint(x).argmax(-1).cpu()  # (n, N)
    points, kept = x.cpu(), there.cpu()
    weights, means, stds = (part.detach().float().cpu() for part in mixture)
    colors = label_colors(weights.shape[1])
    columns = min(4, len(x))
    figure = Figure(figsize=(2.6 * columns, 2.6 * -(-len(x) // columns)), dpi=120, layout="constrained")
    panels: list[Any] = [*figure.subplots(-(-len(x) // columns), columns, squeeze=False).flat]
    for panel in panels:
        panel.set_axis_off()
    for row, panel in enumerate(panels[: len(x)]):
        shown = points[row, kept[row]].numpy().T
        panel.scatter(*shown, s=4, c=colors[component[row, kept[row]].numpy()], linewidths=0, alpha=POINT_OPACITY)
        for k, weight in enumerate(weights[row].exp().tolist()):
            (x0, y0), (width, height) = means[row, k].tolist(), (2 * _STDS * stds[row, k]).tolist()
            panel.add_patch(Ellipse((x0, y0), width, height, fill=False, alpha=max(weight, 0.1) ** 0.5))
        panel.set_aspect("equal", adjustable="datalim")
    return painted(figure)
