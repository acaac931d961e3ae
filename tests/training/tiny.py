"""The smallest model and data that have the surface which callbacks and loggers see."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from attelbo.data.batch import Batch, Block, DataSpec

TERMS = ("loss", "elbo", "reconstruction", "kl")


class TinyStepper:
    """Takes plain SGD steps over a block; ``poison`` maps an optimizer step (from 1) to values to put into it."""

    def __init__(self, total_steps: int, poison: dict[int, dict[str, float]] | None = None) -> None:
        self.step = 0
        self.total_steps = total_steps
        self.rows_seen = 0
        self.row_tokens: int | None = None
        self.log_every_n_steps = 2
        self.terms = TERMS
        self.block_values = torch.empty(0, len(TERMS))
        self.poison = poison or {}

    def latest(self) -> dict[str, Tensor]:
        return dict(zip(self.terms, self.block_values.mean(0), strict=True)) if len(self.block_values) else {}

    def __call__(self, model: "TinyModel", block: Block) -> None:
        values = []
        for rows in block.index.split(block.batch_size):
            self.step += 1
            loss = model.loss(rows)
            optimizer = model.optimizers()
            model.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            one = dict.fromkeys(TERMS, float(self.step)) | {"loss": loss.item()} | self.poison.get(self.step, {})
            values.append(torch.tensor([one[name] for name in TERMS]))
        self.block_values = torch.stack(values)
        self.rows_seen += len(block.index)


class TinyModel(LightningModule):
    def __init__(self, stepper: TinyStepper, lr: float = 0.01, val_elbo: list[float] | None = None) -> None:
        super().__init__()
        self.stepper = stepper
        self.lr = lr
        self.val_elbo = val_elbo or []
        self.weight = nn.Parameter(torch.zeros(3, 4))
        self.dropout = nn.Dropout()
        self.automatic_optimization = False

    monitor = ("val/elbo", "max")

    def loss(self, rows: Tensor) -> Tensor:
        return (self.weight.sum() - rows.float().mean()).square()

    def training_step(self, batch: Block, batch_idx: int) -> None:
        self.stepper(self, batch)

    def validation_step(self, batch: Block, batch_idx: int) -> None:
        value = self.val_elbo[self.current_epoch] if self.current_epoch < len(self.val_elbo) else 0.0
        self.log("val/elbo", value, batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    # Noisy on purpose: a picture must be the same every time and leave the run's own streams alone.

    def sample(self, n: int) -> Tensor:
        return torch.rand(n, 1, 8, 8, device=self.device)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.dropout(x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.flatten(1)[:, :4] @ torch.eye(4)


class TinyData(LightningDataModule):
    """Rows 0..n-1 in order; a block of two minibatches of ``batch_size`` rows at a time."""

    def __init__(self, n: int = 24, batch_size: int = 3) -> None:
        super().__init__()
        self.n = n
        self.batch_size = batch_size
        self.spec = DataSpec(name="tiny", shape=(1, 8, 8), kind="levels", n_classes=10)
        self.class_names = tuple("abcdefghij")

    def n_rows(self, split: str) -> int:
        return self.n

    def crops(self, device: torch.device) -> bool:
        return False

    def materialize(self, index: Tensor, split: str) -> Batch:
        x = torch.rand(self.n, 1, 8, 8, generator=torch.Generator().manual_seed(7))[index]
        return Batch(x, index % 10, index)

    def shown(self, x: Tensor) -> Tensor:
        return x

    def _blocks(self, split: str) -> Any:
        blocks = [Block(rows, self.batch_size, split) for rows in torch.arange(self.n).split(2 * self.batch_size)]
        return torch.utils.data.DataLoader(blocks, batch_size=None)

    def train_dataloader(self) -> Any:
        return self._blocks("train")

    def val_dataloader(self) -> Any:
        return self._blocks("val")


def tiny_trainer(folder: Path, epochs: int = 2, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "log_every_n_steps": 1,
        "callbacks": [],
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**(defaults | options))
