"""Lightning as its widespread project template for Hydra has it: a data set that makes one image at a time.

torchvision's MNIST with ToTensor, a DataLoader without workers; the loss kept in torchmetrics' MeanMetric, logged with
``self.log`` on every step and epoch and shown in the bar; CSVLogger, RichProgressBar, RichModelSummary, EarlyStopping
and ModelCheckpoint (best and last) are on. Hydra itself only acts before the training starts, and is left out.
"""

import sys
import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from benchmarks.contestants.networks import PlainVAE, begin, draw
from benchmarks.contestants.watch import Watch
from benchmarks.task import Task
from benchmarks.turns import arguments


class TemplateModule(LightningModule):
    """The task's VAE; batches are grey levels and labels."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.vae = PlainVAE(task)
        self.train_loss = MeanMetric()
        self.val_elbo = MeanMetric()
        self.val_elbo_best = MaxMetric()
        self.rows_seen = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, _ = batch
        loss = self.vae(draw(x))
        self.train_loss(loss)
        self.log("train/loss", self.train_loss, on_step=True, on_epoch=True, prog_bar=True)
        self.rows_seen += len(x)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, _ = batch
        self.val_elbo(-self.vae(draw(x)))
        self.log("val/elbo", self.val_elbo, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.val_elbo_best(self.val_elbo.compute())
        self.log("val/elbo_best", self.val_elbo_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.task.lr, fused=self.task.fused)


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    begin(task)
    images = MNIST(task.data_dir, train=True, transform=ToTensor())
    sizes = [task.train_size, task.validation_size, len(images) - task.train_size - task.validation_size]
    train, validation, _ = random_split(images, sizes)
    module = TemplateModule(task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=task.laps,
            accelerator="cpu" if task.device == "cpu" else "gpu",
            devices=1,
            logger=CSVLogger(folder),
            callbacks=[
                ModelCheckpoint(monitor="val/elbo", mode="max", save_last=True, auto_insert_metric_name=False),
                EarlyStopping(monitor="val/elbo", mode="max", patience=100),
                RichModelSummary(max_depth=-1),
                RichProgressBar(),
                Watch(task, track, rows_seen=lambda _: module.rows_seen),
            ],
            default_root_dir=folder,
        )
        trainer.fit(
            module,
            DataLoader(train, task.batch_size, shuffle=True),
            DataLoader(validation, task.eval_batch_size),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
