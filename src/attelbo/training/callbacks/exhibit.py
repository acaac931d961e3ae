"""Pictures and texts that show what a model does, in ``media/`` and in the loggers.

An exhibit is a callback for one kind of model and does nothing for others, so that all of them can be among the default
callbacks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from attelbo.data.batch import Batch, DataSpec, Split
from attelbo.data.loader import spread_rows
from attelbo.seeding import derive_seed
from attelbo.training.callbacks.base import stepper_of
from attelbo.training.engine import seed_default_generator
from attelbo.training.loggers import log_work
from attelbo.training.media import Work, save_work


class ExhibitedData(Protocol):
    """What a data module must do for its rows to be shown."""

    spec: DataSpec
    class_names: Sequence[str] | None

    def n_rows(self, split: Split) -> int: ...
    def materialize(self, index: Tensor, split: Split) -> Batch: ...
    def shown(self, x: Tensor) -> Tensor: ...
    def restored(self, x: Tensor) -> Tensor: ...


class ExhibitOptions(TypedDict, total=False):
    """The arguments that all exhibits have in common."""

    every_n_epochs: int
    """Also during training, under ``media/<name>-epoch<n>``; 0: only at the end."""
    split: Split
    """The split that rows are taken from."""
    seed: int
    """Of all that is drawn."""


class Exhibit(Callback, ABC):
    """Writes ``media/<name>.png``, ``.gif`` or ``.txt`` for each work and shows it in the loggers.

    The same rows and the same noise every time, so that the works of two epochs can be compared; the random streams
    of the run are left as they were. Runs on the first process only. The name of a work has no hyphen.

    Args:
        every_n_epochs, split, seed: see :class:`ExhibitOptions`.

    Raises:
        ValueError: ``every_n_epochs`` is negative.
    """

    def __init__(self, every_n_epochs: int = 0, split: Split = "validation", seed: int = 0) -> None:
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs must be at least 0 (0: only at the end), got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs
        self.split: Split = split
        self.seed = seed

    @abstractmethod
    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        """Whether there is something to show for this model and these data."""

    @abstractmethod
    def works(self, model: Any, data: Any) -> Mapping[str, Work]:
        """The works by name; called in evaluation mode, with the default generator seeded by ``seed``."""

    def draw(self, model: LightningModule, data: ExhibitedData) -> Mapping[str, Work]:
        """The works by name, without writing anything; none where the model is not of the kind."""
        if not self.serves(model, data):
            return {}
        purpose = type(self).__name__.lower()
        with evaluating(model), isolated_randomness(model.device, derive_seed(self.seed, purpose)):
            return self.works(model, data)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs and epoch % self.every_n_epochs == 0:
            self.publish(trainer, pl_module, suffix=f"-epoch{epoch:04d}")

    def publish(self, trainer: Trainer, module: LightningModule, suffix: str = "") -> None:
        """Write and log the works of the present weights; at the end of a run these are the evaluated ones."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "media"
        for name, work in self.draw(module, cast(Any, trainer).datamodule).items():
            save_work(work, folder / f"{name}{suffix}")
            log_work(trainer.loggers, name, work, stepper_of(module).step)

    def rows(self, data: ExhibitedData, n: int, device: torch.device) -> Batch:
        """``n`` rows spread evenly over the split, which may be sorted by class; all if there are fewer."""
        return data.materialize(spread_rows(n, data.n_rows(self.split), device), self.split)


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
        seed_default_generator(seed, device)
        yield
