"""The weights of every n-th epoch, so that what changes during training can be measured afterwards."""

from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.checks import check_at_least
from attelbo.training.checkpoint import checkpoints_of, save_weights


class EpochWeights(Callback):
    """Writes ``checkpoints/epoch<n>.ckpt`` after epochs n = N, 2 N, ..., counted from 1: weights alone, which every
    command that takes ``checkpoint=`` takes as ``checkpoint=epoch<n>``. A training goes on from ``last.ckpt``.

    Args:
        every_n_epochs: N.

    Raises:
        ValueError: it is below 1.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        check_at_least(1, every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % self.every_n_epochs == 0:
            save_weights(checkpoints_of(trainer) / f"epoch{epoch}.ckpt", pl_module.state_dict())
