"""Networks of neural processes: from points of a function to a representation, and from there to its values.

A context is read by *paths*: a path gives each target its own features, by attention to the context, or all targets the
same ones, a summary of the context.

Source: Garnelo et al. 2018, "Conditional Neural Processes" (arXiv:1807.01613) and "Neural Processes"
(arXiv:1807.01622); Kim et al. 2019, "Attentive Neural Processes" (arXiv:1901.05761), section 3. Sizes are those of Lee
et al. 2020, "Bootstrapping Neural Processes" (arXiv:2008.02956), and of Nguyen & Grover 2022 (arXiv:2207.04179), in
their code. The blocks of attention are those of ``attelbo.attention.sets``: theirs add the projected queries to the
attention's output. Scores are scaled by the width of one head, as by Kim et al., who take the attention of Vaswani et
al. 2017; in their code by that of all heads together, with which targets are slow to tell points of the context apart.

Shapes: K samples, B functions, N points, X numbers of a place and Y of a value, E features, S numbers of a summary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention import MAB, SAB, Padding
from attelbo.attention.layer import check_heads
from attelbo.checks import check_at_least
from attelbo.networks.layers import NEAR_ZERO, relu_layers

POINT_LAYERS = 4
"""Linear layers on each point; two fewer with self-attention among the points, which replaces the last two."""
PLACE_LAYERS = 2
"""Linear layers on a place, before it becomes a query or a key."""
WHOLE_LAYERS = 2
"""Linear layers on the summary."""


class PointFeatures(nn.Module):
    """Points (B, N, X + Y) -> (B, N, E): a network on each, and where there are heads, self-attention among them.

    Args:
        point: X + Y.
        dim: E.
        heads: of the self-attention; None: points do not see each other.
    """

    def __init__(self, point: int, dim: int, heads: int | None) -> None:
        super().__init__()
        n_layers = POINT_LAYERS if heads is None else POINT_LAYERS - 2
        self.each = relu_layers((point, *[dim] * n_layers))
        self.among = None if heads is None else SAB(dim, heads, scale=_scale(dim, heads))

    def forward(self, points: Tensor, *contexts: Tensor) -> list[Tensor]:
        """The features that the points have in each of several contexts (B, N), bool: which points are in it."""
        features = self.each(points)
        if self.among is None:
            return [features] * len(contexts)
        features = F.relu(features)
        return [self.among(features, mask=Padding(context)) for context in contexts]


class Summary(nn.Module):
    """Points (B, N, X + Y) -> (B, S): their features, the mean over the context, a network.

    Args:
        point: X + Y.
        dim: E.
        out_features: S.
        heads: as in :class:`PointFeatures`.
    """

    def __init__(self, point: int, dim: int, out_features: int, heads: int | None) -> None:
        super().__init__()
        self.features = PointFeatures(point, dim, heads)
        self.whole = relu_layers((dim, *[dim] * (WHOLE_LAYERS - 1), out_features))

    def forward(self, points: Tensor, *contexts: Tensor) -> list[Tensor]:
        """The summary of each of several contexts (B, N), bool; for an empty one that of zeros."""
        each = self.features(points, *contexts)
        return [self.whole(mean_over(*pair)) for pair in zip(each, contexts, strict=True)]


class MeanPath(nn.Module):
    """The same features for all targets: a summary of the context (Garnelo et al. 2018a, eq. 1 to 3).

    Args:
        point: X + Y.
        dim: E.
        heads: as in :class:`PointFeatures`.
    """

    def __init__(self, point: int, dim: int, heads: int | None) -> None:
        super().__init__()
        self.summary = Summary(point, dim, dim, heads)

    def forward(self, points: Tensor, context: Tensor, places: Tensor) -> Tensor:
        """Features (B, 1, E) of the targets; arguments as in :class:`AttentivePath`."""
        return self.summary(points, context)[0].unsqueeze(1)


class AttentivePath(nn.Module):
    """Each target attends to the context: its place is the query, the places of the context are keys, their points
    values (Kim et al. 2019, section 3).

    Args:
        place: X.
        point: X + Y.
        dim: E.
        heads: of attention, among the context and from the targets to it.

    Raises:
        ValueError: heads that do not divide ``dim``.
    """

    def __init__(self, place: int, point: int, dim: int, heads: int) -> None:
        super().__init__()
        self.place = place
        self.values = PointFeatures(point, dim, heads)
        self.queries_keys = relu_layers((place, *[dim] * PLACE_LAYERS))
        self.cross = MAB(dim, heads, scale=_scale(dim, heads))

    def forward(self, points: Tensor, context: Tensor, places: Tensor) -> Tensor:
        """Features (B, N, E) of the targets.

        Args:
            points: (B, M, X + Y).
            context: which of them are known, (B, M), bool.
            places: of the targets, (B, N, X).
        """
        values = self.values(points, context)[0]
        keys, queries = self.queries_keys(points[..., : self.place]), self.queries_keys(places)
        return self.cross(queries, keys, values=values, mask=Padding(context))


class PointDecoder(nn.Module):
    """A place, the features of the target there and z -> eta of its value.

    Linear layers with ReLUs between them. The first acts on their concatenation, computed for each input separately:
    what targets or samples share is computed once.

    Args:
        place: X.
        features: numbers that each path gives a target.
        latent: S, numbers of z.
        dim: units of each layer.
        out_features: numbers of one eta.
        layers: all of them.

    Raises:
        ValueError: fewer than two layers.
    """

    def __init__(
        self, place: int, features: Sequence[int], latent: int, dim: int, out_features: int, layers: int = 3
    ) -> None:
        super().__init__()
        check_at_least(2, layers=layers)
        self.widths = [place, *features, latent]
        self.first = nn.Linear(sum(self.widths), dim)
        inputs = [width for width in self.widths if width]
        with torch.no_grad():
            # All inputs count alike at first. By the number of all together, as for other layers, a place would be two
            # numbers of a hundred or more, and the decoder would take thousands of steps to tell places apart.
            for weight in self.first.weight.split(inputs, 1):
                nn.init.normal_(weight, std=math.sqrt(2 / (len(inputs) * weight.shape[1])))
            nn.init.zeros_(self.first.bias)
        self.rest = relu_layers((*[dim] * (layers - 1), out_features), NEAR_ZERO)

    def forward(self, places: Tensor, features: Sequence[Tensor], z: Tensor) -> Tensor:
        """eta (K, B, N, out_features).

        Args:
            places: (B, N, X).
            features: of each path, (B, N, E), or (B, 1, E) where all targets have the same.
            z: (K, B, S).
        """
        of_place, *of_features, of_z = self.first.weight.split(self.widths, 1)
        hidden = F.linear(places, of_place, self.first.bias)  # (B, N, units)
        for own, weight in zip(features, of_features, strict=True):
            hidden = hidden + F.linear(own, weight)
        return self.rest(F.relu(hidden + F.linear(z, of_z).unsqueeze(-2)))


def _scale(dim: int, heads: int) -> float:
    """Of the scores of a head."""
    check_heads(dim, heads)
    return (dim // heads) ** -0.5


def mean_over(features: Tensor, there: Tensor) -> Tensor:
    """The mean (B, E) of features (B, N, E) over the points in a context (B, N), bool; zeros if it is empty."""
    weights = there.to(features.dtype) / there.sum(1, keepdim=True).clamp(min=1)
    return torch.bmm(weights.unsqueeze(1), features).squeeze(1)
