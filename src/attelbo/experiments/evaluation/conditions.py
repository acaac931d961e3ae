"""What every evaluation is done under: which rows of a split are measured, how, with which noise, and where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attelbo.data import Batch, ResidentDataModule
from attelbo.data.batch import Evaluated, Split
from attelbo.data.loader import spread_rows
from attelbo.experiments.evaluation.splits import batches, split_key
from attelbo.experiments.settings import Evaluation
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Conditions:
    """Given to each ``evaluate_*`` beside the model and its data."""

    split: Evaluated
    settings: Evaluation
    seed: int = 0
    """Of all noise."""
    device: torch.device = CPU

    def key(self, name: str) -> str:
        """The metric's name with the split: ``val/elbo`` for ``elbo``."""
        return f"{split_key(self.split)}/{name}"

    def seed_noise(self, purpose: str, *position: int) -> None:
        """Seed what is drawn from here on."""
        seed_default_generator(derive_seed(self.seed, purpose, *position), self.device)

    def all_rows(self, data: ResidentDataModule) -> Sequence[Tensor]:
        """The indices of every row of the split, (<= batch_size,) each."""
        return torch.arange(data.n_rows(self.split), device=self.device).split(self.settings.batch_size)

    def n_rows(self, data: ResidentDataModule) -> int:
        """The number of rows whose likelihood is measured: ``n_images``, or all."""
        n = data.n_rows(self.split)
        return min(self.settings.n_images or n, n)

    def rows(self, data: ResidentDataModule) -> Sequence[Tensor]:
        """The indices of these rows, spread evenly over the split, (<= batch_size,) each; rows of similar length are in
        one batch."""
        rows = spread_rows(self.n_rows(data), data.n_rows(self.split), self.device)
        return data.alike(rows, self.split).split(self.settings.batch_size)

    def batches(self, data: ResidentDataModule, n: int, split: Split | None = None) -> Iterator[Batch]:
        """``n`` rows spread evenly over the split, or over another one; all, if there are fewer."""
        return batches(data, split or self.split, n, self.settings.batch_size, self.device)
