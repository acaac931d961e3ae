"""Pictures of what the model has learned: samples, reconstructions, a map of the latent space.

Shapes: (N, C, H, W) images in [0, 1], D latent dimensions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from attelbo.data.batch import Batch, DataSpec, Split
from attelbo.seeding import derive_seed
from attelbo.training.callbacks.base import stepper_of
from attelbo.training.loggers import log_picture
from attelbo.training.media import Picture, image_grid, latent_map, pair_grid, save_png

_CHUNK = 500
"""Rows that are encoded at a time."""


class PicturedModel(Protocol):
    """What a model must do to be pictured."""

    def sample(self, n: int) -> Tensor: ...  # (n, C, H, W), mean images in [0, 1]
    def reconstruct(self, x: Tensor, y: Tensor | None) -> Tensor: ...  # (N, C, H, W) in [0, 1]
    def encode(self, x: Tensor, y: Tensor | None) -> Tensor: ...  # (N, D), posterior means


class PicturedData(Protocol):
    """What a data module must do to be pictured."""

    spec: DataSpec

    def n_rows(self, split: str) -> int: ...
    def materialize(self, index: Tensor, split: str) -> Batch: ...


class Pictures(Callback):
    """Writes ``media/{samples,reconstructions,latent_map}.png`` and shows them in the loggers.

    The same rows and the same noise every time, so that pictures of two epochs can be compared; the
    random streams of the run are left as they were. Runs on the first process only.

    Args:
        n_samples: Images drawn from the prior.
        n_reconstructions: Pairs of an image and its reconstruction.
        n_latent: Points in the latent map.
        every_n_epochs: Also during training, as ``media/<picture>-epoch<n>.png``; 0: only at the end.
        split: The split that images are taken from.
        seed: Of the samples.
    """

    def __init__(
        self,
        n_samples: int = 64,
        n_reconstructions: int = 20,
        n_latent: int = 2000,
        every_n_epochs: int = 0,
        split: Split = "validation",
        seed: int = 0,
    ) -> None:
        for name, count in (("n_samples", n_samples), ("n_reconstructions", n_reconstructions), ("n_latent", n_latent)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs must be at least 0 (0: only at the end), got {every_n_epochs}")
        self.n_samples = n_samples
        self.n_reconstructions = n_reconstructions
        self.n_latent = n_latent
        self.every_n_epochs = every_n_epochs
        self.split = split
        self.seed = seed

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs and epoch % self.every_n_epochs == 0:
            self.publish(trainer, pl_module, suffix=f"-epoch{epoch:04d}")

    def publish(self, trainer: Trainer, module: LightningModule, suffix: str = "") -> None:
        """Write and log the pictures of the weights as they are; at the end of a run those that were evaluated."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "media"
        data = cast(PicturedData, cast(Any, trainer).datamodule)
        for name, picture in self.draw(module, data).items():
            save_png(picture, folder / f"{name}{suffix}.png")
            log_picture(trainer.loggers, name, picture, stepper_of(module).step)

    def draw(self, module: LightningModule, data: PicturedData) -> dict[str, Picture]:
        """The pictures by name, without writing anything."""
        model = cast(PicturedModel, module)
        with evaluating(module), isolated_randomness(module.device, derive_seed(self.seed, "pictures")):
            pictures: dict[str, Picture] = {}
            if len(data.spec.shape) == 3:
                originals, labels, *_ = self._batch(data, self.n_reconstructions, module.device)
                pictures["samples"] = image_grid(model.sample(self.n_samples))
                pictures["reconstructions"] = pair_grid(originals, model.reconstruct(originals, labels))
            batch = self._batch(data, self.n_latent, module.device)
            labels = [None] * len(batch.x) if batch.y is None else batch.y.split(_CHUNK)
            parts = zip(batch.x.split(_CHUNK), labels, strict=False)
            means = torch.cat([model.encode(x, y).flatten(1) for x, y in parts])
            title = f"Posterior means, {len(means):,} {self.split} images of {data.spec.name}"
            pictures["latent_map"] = latent_map(means, batch.y, title)
        return pictures

    def _batch(self, data: PicturedData, n: int, device: torch.device) -> Batch:
        """``n`` rows spread evenly over the split, which may be sorted by class."""
        size = data.n_rows(self.split)
        n = min(n, size)
        return data.materialize(torch.arange(n, device=device) * size // n, self.split)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule is in the mode it was in before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def isolated_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Draws inside come from ``seed``; the default streams outside go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
