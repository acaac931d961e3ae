"""Checkpoints in the run directory, under names that do not change: ``checkpoints/best.ckpt``, ``last.ckpt``."""

import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attelbo.checks import check_at_least
from attelbo.training.callbacks.base import is_known, monitor_of
from attelbo.training.checkpoint import AtomicCheckpointIO, checkpoint_io_of, checkpoints_of


class Checkpoint(ModelCheckpoint):
    """Saves ``<run directory>/checkpoints/<filename>.ckpt``, replacing the one before.

    Two of them make a run: the best epoch and the last one. Lightning's ``save_last`` would not do for the latter:
    it saves only when the best has just been saved, so resuming would repeat all epochs since the best. Both save
    at the end of an epoch, and the next begins while the file is written; an epoch that is the best is written once and
    has two names.

    Nothing in the checkpoint depends on where the run directory lies, so it may be moved, and equal
    runs write equal checkpoints, but for the seconds that they took.

    Args:
        filename: Name of the file, without ".ckpt".
        monitor: Save only when this validation metric is better than ever; auto: the metric that the model names, or
            always if it names none; None: always.
        mode: Whether more is better, "max", or less, "min"; with auto, the model says that too.
        every_n_epochs: How often to save.

    Raises:
        ValueError: it is below 1, or the name is none or one with folders or braces.
        ConfigError: after a validation, if there is no such metric.
    """

    def __init__(
        self,
        filename: str = "last",
        monitor: str | None = None,
        mode: Literal["min", "max"] = "max",
        every_n_epochs: int = 1,
    ) -> None:
        check_at_least(1, every_n_epochs=every_n_epochs)
        if not filename.strip() or Path(filename).name != filename or "{" in filename:
            raise ValueError(f"filename must be a plain name, such as best, got {filename!r}")
        self._saved_at = (-1, -1)  # epoch and step
        super().__init__(
            filename=filename,
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,  # and not after a validation: the last epochs may have none
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(checkpoints_of(trainer))
        if stage == "fit" and trainer.is_global_zero:
            Path(self.dirpath).mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # A resumed run finds its own checkpoints there.
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)
        if not isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):  # of a Trainer that was not built here
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if self.monitor == "auto":
            self.monitor, self.mode = monitor_of(pl_module) or (None, self.mode)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A training that ends before its first validation has nothing to be best at; Lightning would warn.
        key = f"callbacks.{self.filename}_checkpoint.monitor"
        if self.monitor is None or is_known(self.monitor, trainer, key):
            super().on_train_epoch_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        others = (callback for callback in trainer.checkpoint_callbacks if callback is not self)
        written = next((o for o in others if isinstance(o, Checkpoint) and o._has_just_saved(trainer)), None)
        with checkpoint_io_of(trainer).in_background() as files:
            if written is None:
                super()._save_checkpoint(trainer, filepath)
            else:
                if trainer.is_global_zero:
                    files.link(Path(written.best_model_path), Path(filepath))
                self._last_global_step_saved = trainer.global_step
        self._saved_at = trainer.current_epoch, trainer.global_step

    def _has_just_saved(self, trainer: Trainer) -> bool:
        return self._saved_at == (trainer.current_epoch, trainer.global_step)

    @property
    def state_key(self) -> str:
        return f"Checkpoint[{self.filename}]"

    def state_dict(self) -> dict[str, Any]:
        if self.monitor is None:
            return {}  # the last one compares nothing
        return {"best_model_score": self.best_model_score, "saved": bool(self.best_model_path)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = self.format_checkpoint_name({})
        # The best of another run, whose checkpoint this one began with, is not in this directory: it does not count.
        if not state_dict["saved"] or not Path(path).is_file():
            return
        self.best_model_path = path
        self.best_model_score = state_dict["best_model_score"]
        if self.best_model_score is not None:
            self.best_k_models = {path: self.best_model_score}
            self.kth_best_model_path = path


def chosen_by(trainer: Trainer, name: str) -> str | None:
    """What the checkpoint with this name was chosen by, such as "highest val/elbo"; None: by nothing."""
    named = (c for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoint) and c.filename == name)
    chosen = next(named, None)
    if chosen is None or chosen.monitor is None:
        return None
    return f"{'highest' if chosen.mode == 'max' else 'lowest'} {chosen.monitor}"
