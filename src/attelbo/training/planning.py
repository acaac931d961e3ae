"""How many optimizer steps a training has, and whether a checkpoint can be resumed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import nn

from attelbo.data import ResidentDataModule
from attelbo.data.loader import rows_per_rank
from attelbo.errors import ConfigError
from attelbo.models.base import Model
from attelbo.training.callbacks import EarlyStopping


def planned_steps(
    trainer: Trainer, data: ResidentDataModule, steps: int = 0, epochs: int = 0, minibatches: int = 0
) -> int:
    """Optimizer steps of the whole training, on data that are loaded.

    Args:
        trainer: its limits count.
        data: what is trained on.
        steps: optimizer steps taken so far, perhaps by another training with minibatches of another size.
        epochs: epochs completed.
        minibatches: minibatches done of the current epoch.

    Raises:
        ConfigError: there are none, or the data come in single batches.
    """
    refuse_single_batches(data)
    rows = rows_per_rank(data.rows_per_epoch, trainer.world_size)
    per_pass = -(-rows // data.batch_size) if data.takes_few else rows // data.batch_size
    if per_pass == 0:
        given, other = f"trainer.steps_per_epoch={data.steps_per_epoch}", "trainer.steps_per_epoch=null"
        if data.steps_per_epoch is None:
            given, other = "data.drop_last=true", "data.drop_last=false"
        raise ConfigError(
            f"{given} leaves nothing to train on: data.batch_size={data.batch_size:,}, and an epoch has {rows:,} rows; "
            f"make it smaller, or give {other}"
        )
    per_epoch = data.steps_per_epoch or per_pass
    if isinstance(trainer.limit_train_batches, int):
        per_epoch = min(per_epoch, trainer.limit_train_batches * data.minibatches_per_block)
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(steps + per_epoch * (trainer.max_epochs - epochs) - minibatches)
    return min(limits)


def refuse_single_batches(data: ResidentDataModule) -> None:
    """Raise ConfigError where the data, loaded or not, come in single batches instead of blocks."""
    if data.minibatches_per_block < 1:
        raise ConfigError("data.minibatches_per_block must be at least 1 (0 is for a Trainer of your own)")


def refuse_single_rows(model: nn.Module, data: ResidentDataModule, ranks: int, micro_batches: int) -> None:
    """Check that batch normalization over rows always has several of them: torch raises at a single one.

    Args:
        model: what is trained.
        data: what it is trained on, loaded.
        ranks: processes that share the rows.
        micro_batches: parts that a minibatch is split into.

    Raises:
        ConfigError: a minibatch, or a part of one, has a single row.
    """
    if not any(isinstance(layer, nn.BatchNorm1d) and layer.training for layer in model.train().modules()):
        return
    rows, size = rows_per_rank(data.rows_per_epoch, ranks), data.batch_size
    for n in {min(rows, size), rows % size if data.takes_few else 0} - {0}:
        part = -(-n // micro_batches)
        if n % part == 1 or part == 1:
            split = f" in {micro_batches} micro_batches" if micro_batches > 1 else ""
            raise ConfigError(
                f"data.batch_size={size:,}: {rows:,} training rows leave a minibatch of {n:,}{split}, and a single row "
                "has no variance for batch normalization; another data.batch_size, or data.drop_last=true"
            )


def refuse_ended(trainer: Trainer, planned: int, path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Check that a new training can go on from another's checkpoint.

    Args:
        trainer: that of the new training.
        planned: its steps.
        path: the checkpoint.
        checkpoint: its content.

    Raises:
        ConfigError: the new training's limits are reached there already, or the checkpoint holds weights alone.
    """
    if "loops" not in checkpoint:
        raise ConfigError(f"ckpt: {path} holds weights alone; best.ckpt and last.ckpt can be gone on from")
    step, epochs = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    remedy = ""
    if 0 < trainer.max_steps <= step or 0 < (trainer.max_epochs or 0) <= epochs:
        remedy = "a larger trainer.max_epochs, or trainer.max_steps, goes on"
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        state = checkpoint["callbacks"].get(getattr(callback, "state_key", None))
        if isinstance(callback, EarlyStopping) and state is not None:
            callback.load_state_dict(state)
            if callback.saw_non_finite:
                remedy = f"{callback.monitor} was not finite there; callbacks=default goes on"
            elif callback.has_stopped:
                remedy = "a larger callbacks.early_stopping.patience, or callbacks=default, goes on"
    if remedy:
        raise ConfigError(
            f"ckpt: {path} is where this training ends, at step {step:,} of {planned:,}, after {epochs:,} epochs; "
            f"{remedy}"
        )


def refuse_other_optimizers(model: Model, path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Check that the optimizers of a new training can load the state of those in another's checkpoint.

    Args:
        model: the new model.
        path: the checkpoint.
        checkpoint: its content.

    Raises:
        ConfigError: they are of another kind, or divide the parameters differently.
    """

    def forms(states: Iterable[Mapping[str, Any]]) -> list[list[tuple[set[str], int]]]:
        return [[(set(group), len(group["params"])) for group in state["param_groups"]] for state in states]

    own = forms(optimizer.state_dict() for optimizer in model.built_optimizers())
    if own != forms(checkpoint["optimizer_states"]):
        raise ConfigError(
            f"ckpt: {path} was trained with another kind of optimizer, or other parts of the model had one of their "
            "own; optimizer=... and model/objective=... of that run go on"
        )
