"""Plain Lightning, as somebody who knows it writes it today.

A LightningModule with automatic optimization and ``self.log``, a DataLoader over a TensorDataset that holds all
images, fused Adam; CSVLogger, Lightning's own progress bar and ModelCheckpoint (best and last) are on, all other
settings are Lightning's defaults.
"""

import sys
import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.contestants.networks import PlainVAE, begin, images_of, pixels
from benchmarks.contestants.watch import Watch
from benchmarks.task import Task
from benchmarks.turns import arguments


class PlainModule(LightningModule):
    """The task's VAE; batches are bytes, drawn as bits on the device."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.vae = PlainVAE(task)
        self.rows_seen = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.vae(pixels(batch[0], self.task))
        self.log("train/loss", loss, prog_bar=True)
        self.rows_seen += len(batch[0])
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/elbo", -self.vae(pixels(batch[0], self.task)), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.task.lr, fused=self.task.fused)


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    begin(task)
    images, validation = images_of(task)
    module = PlainModule(task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=task.laps,
            accelerator="cpu" if task.device == "cpu" else "gpu",
            devices=1,
            logger=CSVLogger(folder),
            callbacks=[
                ModelCheckpoint(monitor="val/elbo", mode="max", save_last=True),
                Watch(task, track, rows_seen=lambda _: module.rows_seen),
            ],
            default_root_dir=folder,
        )
        trainer.fit(
            module,
            DataLoader(TensorDataset(images), task.batch_size, shuffle=True),
            DataLoader(TensorDataset(validation), task.eval_batch_size),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
