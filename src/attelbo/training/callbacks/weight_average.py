"""The mean of the last epochs' weights, which translators are often measured with (Vaswani et al. 2017, section 6.1).

Each epoch leaves its weights in ``checkpoints/epochs/``. Those of the last ones stay, so that a run that was
interrupted goes on with what it has; at the end their mean is written to ``checkpoints/average.ckpt``.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.checks import check_at_least
from attelbo.training.checkpoint import checkpoints_of, save_weights


class WeightAverage(Callback):
    """Writes ``checkpoints/average.ckpt``, which ``evaluation.checkpoint=average`` measures.

    Args:
        epochs: so many of the last ones, or all if there were fewer.

    Raises:
        ValueError: fewer than one.
    """

    def __init__(self, epochs: int = 10) -> None:
        check_at_least(1, epochs=epochs)
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights of this epoch, and forget those that no mean will need."""
        if not trainer.is_global_zero:
            return
        folder, epoch = checkpoints_of(trainer) / "epochs", trainer.current_epoch
        save_weights(folder / f"{epoch:06d}.ckpt", pl_module.state_dict())
        for file in folder.glob("*.ckpt"):
            if not epoch - self.epochs < int(file.stem) <= epoch:
                file.unlink()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the mean; integers are those of the last epoch. Not when training ends, which it does no more in a run
        that was killed after its last checkpoint.
        """
        files = sorted((checkpoints_of(trainer) / "epochs").glob("*.ckpt"))
        if not trainer.is_global_zero or not files:
            return
        mean: dict[str, Any] = {}
        for number, file in enumerate(files, 1):
            for name, value in torch.load(file, map_location="cpu", weights_only=True)["state_dict"].items():
                is_first = number == 1 or not value.is_floating_point()
                mean[name] = value if is_first else mean[name].lerp(value, 1 / number)
        save_weights(checkpoints_of(trainer) / "average.ckpt", mean)
