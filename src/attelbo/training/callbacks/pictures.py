"""Pictures of what a model of images or vectors has learned: samples, reconstructions, the latent space, traversals.

Shapes: (N, C, H, W) images in [0, 1], D latent dimensions.
"""

from typing import Protocol, Unpack, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.data.batch import Batch
from attelbo.models import LatentVariableModel
from attelbo.models.traversal import traversals
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import Picture, class_columns, image_grid, latent_map, pair_grid, row_grid
from attelbo.training.names import named

_CHUNK = 500
"""Rows that are encoded at a time."""
N_AXES, STEPS, LIMIT = 8, 9, 2.5
"""Of traversals: latents, values of each, and standard deviations on either side."""


@runtime_checkable
class PicturedModel(Protocol):
    """What a model must do to be pictured."""

    def sample(self, n: int) -> Tensor: ...  # (n, C, H, W), mean images in [0, 1]
    def reconstruct(self, x: Tensor, y: Tensor | None) -> Tensor: ...  # (N, C, H, W) in [0, 1]
    def encode(self, x: Tensor, y: Tensor | None) -> Tensor: ...  # (N, D), posterior means


class Pictures(Exhibit):
    """``samples``, ``reconstructions`` and ``latent_map`` of a model that encodes and decodes images, and
    ``traversals`` where z is a vector: 8 of its latents, one in each row, the most varying first. Of vectors
    ``samples`` are points beside those of the data, x ~ p(x|z), in the plane of the principal components of both.

    Args:
        n_samples: Images drawn from the prior; of vectors there are as many as of the data.
        n_reconstructions: Pairs of an image and its reconstruction.
        n_latent: Points in the latent map, and of vectors beside their samples.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        n_samples: int = 64,
        n_reconstructions: int = 20,
        n_latent: int = 2000,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n_samples=n_samples, n_reconstructions=n_reconstructions, n_latent=n_latent)
        self.n_samples = n_samples
        self.n_reconstructions = n_reconstructions
        self.n_latent = n_latent

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, PicturedModel)

    def works(self, model: PicturedModel, data: ExhibitedData) -> dict[str, Picture]:
        assert isinstance(model, LightningModule)
        pictures: dict[str, Picture] = {}
        if len(data.spec.shape) == 3:
            shown = self.rows(data, self.n_reconstructions, model.device)
            columns = class_columns(self.n_samples, getattr(model, "known_classes", None))
            pictures["samples"] = image_grid(data.shown(model.sample(self.n_samples)), columns)
            reconstructions = data.shown(model.reconstruct(shown.x, shown.y))
            pictures["reconstructions"] = pair_grid(data.shown(shown.x), reconstructions)
        batch = self.rows(data, self.n_latent, model.device)
        means = encode(model, batch).flatten(1)
        which = f"{len(means):,} {self.split} {data.spec.row}s of {data.spec.name}"
        pictures["latent_map"] = latent_map(means, batch.y, f"Posterior means, {which}", names=data.class_names)
        if len(data.spec.shape) == 3 and isinstance(model, LatentVariableModel) and model.z_is_vector:
            x, y = batch.x[:1], None if batch.y is None else batch.y[:1]
            moved = traversals(model, x, y, means, STEPS, LIMIT, N_AXES)
            pictures["traversals"] = named(row_grid([data.shown(images) for images in moved.values()]), list(moved))
        if data.spec.row == "row" and data.spec.shape[0] > 1 and isinstance(model, LatentVariableModel):
            both = torch.cat([batch.x, model.draw(len(batch.x))])
            both = data.restored(both) if data.spec.shape[0] == 2 else both  # of more numbers it is a projection
            sampled = torch.arange(len(both)) >= len(batch.x)
            title = f"As many samples beside {which}"
            pictures["samples"] = latent_map(both, sampled.long(), title, "x", ("data", "samples"))
        return pictures


def encode(model: PicturedModel, batch: Batch) -> Tensor:
    """The posterior means of a batch of any size, (N, D)."""
    chunks = [slice(first, first + _CHUNK) for first in range(0, len(batch.x), _CHUNK)]
    return torch.cat([model.encode(batch.x[rows], None if batch.y is None else batch.y[rows]) for rows in chunks])
