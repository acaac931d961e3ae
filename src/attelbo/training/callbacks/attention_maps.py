"""Where a model looks: the attention of its layers as pictures.

Shapes: B rows shown, (C, H, W) image, N heads, T queries, S keys, (h, w) the grid that the keys are the cells of.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention import attention_layers, record_attention
from attelbo.checks import check_at_least
from attelbo.data.batch import PAD, Batch, DataSpec
from attelbo.data.text.masking import WRITTEN
from attelbo.errors import ConfigError, UserError
from attelbo.models import TextVAE
from attelbo.networks import AutoregressiveTransformer, NextScaleTransformer
from attelbo.networks.depth_attention import DepthAttention
from attelbo.networks.pooling import Pooling
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.maps import alignment_map, attention_map, attention_overlay
from attelbo.training.media import Picture

_MOST_HEADS = 8


class AttentionMaps(Exhibit):
    """``attention_<layer>`` for layers with attention, ``alignment`` for a model that translates.

    Images: a row for each, first as it is, then under the weights. For a class token or a pooling there is a panel for
    each head; for the cells of a feature map, the finest of several, one for each of four cells (green), means over
    heads; for learned queries one for each of the first of them.
    Attention across the layers of a hierarchy is :class:`~attelbo.training.callbacks.Depths`'.
    Texts and sets of numbers: each token on each other, a panel for each head, for one row of the split.

    Args:
        layers: their names, or patterns, as :func:`~attelbo.attention.record_attention` takes them.
        n_layers: the most layers that are shown, spread evenly, the last one among them.
        n_images: images that are shown.
        n_alignments: pairs of source and target that are shown.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        layers: Sequence[str] = ("*",),
        n_layers: int = 4,
        n_images: int = 8,
        n_alignments: int = 3,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n_layers=n_layers, n_images=n_images, n_alignments=n_alignments)
        self.layers = tuple(layers)
        self.n_layers = n_layers
        self.n_images = n_images
        self.n_alignments = n_alignments

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        kind = data.spec.kind
        of_points = kind == "function" or (kind == "set" and data.spec.shape[-1] > 1)  # which have no order and no name
        return bool(attention_layers(model)) and not of_points

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the training that the layers are there.

        Raises:
            ConfigError: they are not.
        """
        if attention_layers(pl_module):
            try:
                attention_layers(pl_module, self.layers)
            except ValueError as error:
                raise ConfigError(f"callbacks.attention_maps.layers: {error}") from error

    def works(self, model: Any, data: Any) -> dict[str, Picture]:
        if hasattr(model, "alignment"):
            return self._alignments(model, data)
        of_images = len(data.spec.shape) == 3
        batch = self.rows(data, self.n_images if of_images else 1, model.device)
        with record_attention(model, self.layers) as maps:
            model.losses(batch)
        n_own = max((each.n_own for each in model.modules() if isinstance(each, Pooling)), default=0) or 1
        labels = [] if of_images else token_labels(batch, data)
        pictures: dict[str, Picture] = {}
        for name in spread([name for name in maps if name not in across_depth(model)], self.n_layers):
            if of_images:
                picture = over_images(between_cells(maps[name], name, model), data.shown(batch.x), n_own)
            else:
                of_decoder = isinstance(model, TextVAE) and name.startswith("decoder.")
                picture = on_tokens(maps[name], model.decoder_labels(labels) if of_decoder else labels, name)
            if picture is not None:
                pictures[f"attention_{name.removesuffix('.attention').replace('.', '_')}"] = picture
        return pictures

    def _alignments(self, model: Any, data: Any) -> dict[str, Picture]:
        batch = self.rows(data, self.n_alignments, model.device)
        assert batch.y is not None
        try:
            weights = model.alignment(batch.x, batch.y[:, :-1])  # (B, T, S)
        except UserError:  # it has no attention
            return {}
        pictures: dict[str, Picture] = {}
        for row in range(len(batch.x)):
            source = labels_of(batch.x[row], data.tokenizer, data.spec)
            target = labels_of(batch.y[row, 1:], data.target_tokenizer, data.spec)
            shown = weights[row, : len(target), : len(source)]
            pictures[f"alignment_{row + 1}"] = alignment_map(shown, source, target, "Alignment of target with source")
        return pictures


def across_depth(model: nn.Module) -> set[str]:
    """The names of layers that attend to layers, not to places."""
    owners = [(name, each) for name, each in model.named_modules() if isinstance(each, DepthAttention)]
    return {f"{name}.{own}".rstrip(".") for name, owner in owners for own, _ in owner.named_modules()}


# -- over images ---------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """Keys that are the cells of an image's grid, row by row, after ``own`` keys that are not."""

    own: int
    height: int
    width: int


def grid_of(n_keys: int, size: tuple[int, int], n_own: int = 1) -> Grid | None:
    """The grid that the keys form in an image (H, W): all of them, or all but the first ``n_own``, a class token and
    its registers; None if they form none.

    Of all such grids, the one whose cells are most nearly square.
    """
    found: list[tuple[float, Grid]] = []
    for own in (0, n_own):
        cells = n_keys - own
        for height in (h for h in range(1, cells + 1) if cells % h == 0):
            width = cells // height
            stretched = abs(math.log(size[0] * width / (size[1] * height)))
            found.append((stretched, Grid(own, height, width)))
    stretched, grid = min(found, default=(math.inf, Grid(0, 0, 0)))
    return grid if stretched < math.log(1.5) else None


def between_cells(weights: Tensor, name: str, model: nn.Module) -> Tensor:
    """The weights (B, N, T, S) of this layer, with the queries and keys of a prior over codes at their places in the
    image: of several scales those of the finest, (B, N, h w, h w); a key that holds the code before it at that code's.
    """
    for owner, prior in model.named_modules():
        if not name.startswith(owner):
            continue
        if isinstance(prior, NextScaleTransformer):
            cells = prior.pyramid.lengths[-1]
            return weights[..., -cells:, -cells:]
        if isinstance(prior, AutoregressiveTransformer):
            return F.pad(weights[..., 1:], (0, 1))  # the first key is no code, the last code no key
    return weights


def over_images(weights: Tensor, images: Tensor, n_own: int = 1) -> Picture | None:
    """Weights (B, N, T, S) laid over the images (B, C, H, W); the first ``n_own`` keys may be a class token and its
    registers. None where the keys are not the cells of the images."""
    grid = grid_of(weights.shape[-1], (images.shape[-2], images.shape[-1]), n_own)
    if len(weights) != len(images) or grid is None or grid.height * grid.width == 1:
        return None
    heat = weights[..., grid.own :].unflatten(-1, (grid.height, grid.width))  # (B, N, T, h, w)
    if grid.own or heat.shape[2] == 1:
        shown = heat[:, :_MOST_HEADS, 0]
        return attention_overlay(images, shown, panels=_numbered("head", shown.shape[1]))
    if heat.shape[2] != grid.height * grid.width:  # learned queries, which are in no cell
        shown = heat.mean(1)[:, :_MOST_HEADS]
        return attention_overlay(images, shown, panels=_numbered("query", shown.shape[1]))
    asking = torch.tensor([_cell(grid, i, j) for i in (1, 3) for j in (1, 3)], device=heat.device)
    return attention_overlay(images, heat.mean(1)[:, asking], asking.expand(len(images), -1))


def _numbered(what: str, n: int) -> list[str]:
    return [f"{what} {place}" for place in range(1, n + 1)]


def _cell(grid: Grid, i: int, j: int) -> int:
    """The cell at i quarters of the height and j quarters of the width."""
    return grid.height * i // 4 * grid.width + grid.width * j // 4


# -- token by token ------------------------------------------------------------------------------------


def on_tokens(weights: Tensor, labels: Sequence[str], name: str) -> Picture:
    """The weights (1, N, T, S) of a row, without its padding; those of a single query with a line for each head."""
    heads = weights[0, :_MOST_HEADS]
    numbers = [str(i + 1) for i in range(len(heads))]
    queries, keys = _named(heads.shape[1], labels), _named(heads.shape[2], labels)
    shown_queries, shown_keys = ([i for i, label in enumerate(each) if label] for each in (queries, keys))
    shown, keys = heads[:, shown_queries][:, :, shown_keys], [keys[i] for i in shown_keys]
    if shown.shape[1] == 1:
        return attention_map(shown[:, 0], numbers, keys, name, axes=("head", "key"))
    panels = [f"head {number}" for number in numbers] if len(numbers) > 1 else ()
    return attention_map(shown, [queries[i] for i in shown_queries], keys, name, panels=panels)


def _named(n: int, labels: Sequence[str]) -> list[str]:
    """Labels of the tokens, also behind a class token, or numbers for what is something else."""
    if n == len(labels) + 1:
        return ["(class)", *labels]
    return list(labels) if n == len(labels) else [str(i + 1) for i in range(n)]


def token_labels(batch: Batch, data: Any) -> list[str]:
    """A label for each token, element of a set or number of a vector in the first row of a batch; empty ones for
    padding."""
    x, spec = batch.x[0], data.spec
    if spec.kind == "tokens":
        there = labels_of(x, getattr(data, "tokenizer", None), spec)
        return there + [""] * (len(x) - len(there))
    of_numbers = x.ndim == 2 and x.shape[1] == 1
    names = [f"{value:g}" for value in x[:, 0].tolist()] if of_numbers else [str(i + 1) for i in range(len(x))]
    if batch.segments is None:
        return names
    return [name if there else "" for name, there in zip(names, (batch.segments[0] >= 0).tolist(), strict=True)]


def labels_of(tokens: Tensor, tokenizer: Any, spec: DataSpec) -> list[str]:
    """Tokens (T,) as they are written, up to the padding; their numbers where there is no vocabulary."""
    written = None if tokenizer is None else (*tokenizer.tokens, WRITTEN)
    there = tokens[tokens != PAD] if spec.pads else tokens
    return [str(token) if written is None else written[token] for token in there.tolist()]


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread, the last one among them."""
    count = min(most, len(names))
    return [names[-1 - (len(names) * i) // count] for i in reversed(range(count))]
