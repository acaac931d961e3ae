"""Under Lightning's own trainer: the rows of an interrupted and resumed run are those of one that was not."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.data import Batch, LanguageDataModule, ParallelDataModule

EPOCHS = 3

# Lightning 2.6.6 uses a name that torch 2.15 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")


class Recorder(LightningModule):
    """Writes down which rows every training step and evaluation got."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[int]]] = []
        self.evaluated: list[Batch] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch):
        self.optimizers().step()
        self.seen.append((self.current_epoch, batch.index.tolist()))

    def validation_step(self, batch):
        self.evaluated.append(batch)


class SaveAndStop(Callback):
    """Saves after a given number of steps, then ends the run as an interruption does."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class SaveAtEnd(Callback):
    """Saves in one of the hooks at the end of the first epoch, where checkpoints usually come from, and stops."""

    def __init__(self, hook: str, path: Path) -> None:
        setattr(self, hook, lambda trainer, module: self.save(trainer))
        self.path = path

    def save(self, trainer):
        trainer.save_checkpoint(self.path)
        trainer.should_stop = True


def fit(data, callbacks=(), ckpt_path=None, **options):
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize("minibatches_per_block", [0, 4])
@pytest.mark.parametrize("step", [1, 4, 11, 12, 21, 22])
def test_resumed_run_sees_the_rest(digits, tmp_path, step, minibatches_per_block):
    """11 blocks (or 41 plain batches) an epoch: in the first one, at its end, at the start and end of the second."""

    def data():
        return digits(minibatches_per_block=minibatches_per_block)

    uninterrupted = fit(data()).seen
    assert len(uninterrupted) == EPOCHS * len(data().train_dataloader())
    path = tmp_path / "last.ckpt"
    before = fit(data(), [SaveAndStop(step, path)]).seen
    assert before[:step] == uninterrupted[:step]
    after = fit(data(), ckpt_path=path).seen
    assert after == uninterrupted[step:]


@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_epoch_end"])
def test_run_saved_at_the_end_of_an_epoch(digits, tmp_path, hook):
    uninterrupted = fit(digits(minibatches_per_block=4)).seen
    path = tmp_path / "last.ckpt"
    assert fit(digits(minibatches_per_block=4), [SaveAtEnd(hook, path)]).seen == uninterrupted[:11]
    assert fit(digits(minibatches_per_block=4), ckpt_path=path).seen == uninterrupted[11:]


def test_epochs_differ_and_are_whole(digits):
    seen = fit(digits(minibatches_per_block=16)).seen
    epochs = [[row for e, rows in seen if e == epoch for row in rows] for epoch in range(EPOCHS)]
    assert all(sorted(rows) == list(range(1298)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_validation_arrives_as_batches(digits):
    module = fit(digits(minibatches_per_block=16))
    assert [tuple(batch.x.shape) for batch in module.evaluated[:3]] == [(50, 1, 8, 8), (50, 1, 8, 8), (44, 1, 8, 8)]
    assert len(module.evaluated) == 3 * EPOCHS


def random_windows():
    source = {"_target_": "attelbo.data.text.ReferenceText"}
    return LanguageDataModule(
        name="windows",
        source=source,
        tokenizer={"_target_": "attelbo.data.text.Characters"},
        root=".",
        seed=1,
        batch_size=8,
        eval_batch_size=900,
        context=64,
        windows="random",
        windows_per_epoch=100,
        minibatches_per_block=3,
    )


def sentences():
    source = {"_target_": "attelbo.data.text.Dates", "n_train": 100, "n_validation": 10, "n_test": 10}
    characters = {"_target_": "attelbo.data.text.Characters"}
    return ParallelDataModule(
        name="sentences",
        source=source,
        tokenizer=characters,
        target_tokenizer=characters,
        root=".",
        seed=1,
        batch_size=8,
        eval_batch_size=10,
        max_length=40,
        minibatches_per_block=3,
    )


@pytest.mark.parametrize("data", [random_windows, sentences])
@pytest.mark.parametrize("step", [3, 5, 7])
def test_texts_resume_too(data, tmp_path, step):
    """13 minibatches in 5 blocks an epoch."""
    uninterrupted = fit(data()).seen
    assert len(uninterrupted) == 5 * EPOCHS
    fit(data(), [SaveAndStop(step, tmp_path / "last.ckpt")])
    assert fit(data(), ckpt_path=tmp_path / "last.ckpt").seen == uninterrupted[step:]


def test_limited_batches_resume_too(digits, tmp_path):
    uninterrupted = fit(digits(minibatches_per_block=4), limit_train_batches=5).seen
    assert len(uninterrupted) == 5 * EPOCHS
    fit(digits(minibatches_per_block=4), [SaveAndStop(7, tmp_path / "last.ckpt")], limit_train_batches=5)
    resumed = fit(digits(minibatches_per_block=4), ckpt_path=tmp_path / "last.ckpt", limit_train_batches=5).seen
    assert resumed == uninterrupted[7:]
