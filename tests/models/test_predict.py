"""``Trainer.predict`` of a plain Lightning Trainer: what each kind of model is asked for, of the test rows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from attelbo.data import Batch
from attelbo.experiments import run

Score = Callable[[Tensor, Tensor], Tensor]
"""Of predictions, and what was to be predicted."""


def trainer_of(runs: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=runs.folder,
    )


def batches_of(data: Any) -> list[Batch]:
    return [data.materialize(block.index, "test") for block in data.test_dataloader()]


def test_of_a_vae_they_are_the_latents(runs):
    model, data = run.assemble(runs.configure())
    latents = torch.cat(trainer_of(runs).predict(model.eval(), data))
    x = torch.cat([batch.x for batch in batches_of(data)])
    assert torch.allclose(latents, model.encode(x), atol=1e-6)
    assert torch.equal(model(x), model.reconstruct(x))


@pytest.mark.parametrize(
    ("words", "key", "score"),
    [
        (
            ("data=sort", "data.test_size=20", "model=gpt", "model.dim=16"),
            "test/loss",
            lambda nats, y: nats.sum() / (y >= 0).sum(),
        ),
        (
            ("data=unicode_names", "data.train_size=64", "model=text_classifier", "model.dim=16"),
            "test/accuracy",
            lambda classes, y: (classes.argmax(-1) == y).double().mean(),
        ),
        (
            ("data=digits", "model=m2", "data.n_labels=30"),
            "test/accuracy",
            lambda classes, y: (classes.argmax(-1) == y).double().mean(),
        ),
        (
            ("data=max_of_set", "data.train_size=64", "data.test_size=40", "model=deep_sets"),
            "test/mae",
            lambda outputs, y: (outputs.flatten() - y).abs().mean(),
        ),
    ],
    ids=["language", "classes", "few labels", "sets"],
)
def test_they_score_as_the_test_does(runs, words: tuple[str, ...], key: str, score: Score):
    model, data = run.assemble(runs.compose(words))
    trainer = trainer_of(runs)
    (measured,) = trainer.test(model, data, verbose=False)
    predicted = torch.cat(trainer.predict(model, data))
    y = torch.cat([batch.y for batch in batches_of(data)])
    assert float(score(predicted, y)) == pytest.approx(measured[key], rel=1e-5)


def test_of_sequences_they_are_translations(runs):
    words = ("data=dates", "data.source.n_train=64", "data.source.n_validation=8", "data.source.n_test=20")
    model, data = run.assemble(runs.compose([*words, "model=gru_seq2seq", "model.embedding=8", "model.hidden=16"]))
    found = trainer_of(runs).predict(model.eval(), data)
    assert found == [model.translate(batch.x) for batch in batches_of(data)]


def test_of_a_neural_process_they_average_out_z(runs, monkeypatch: pytest.MonkeyPatch):
    words = ("data=gp_rbf", "data.train_size=16", "data.validation_size=4", "data.test_size=4")
    model, data = run.assemble(runs.compose([*words, "model=np", "model.dim=16"]))

    def two_functions(context: Batch, places: Tensor, n_samples: int) -> tuple[Tensor, Tensor]:
        like = torch.ones(1, *places.shape)
        return torch.cat([-like, 3 * like]), torch.cat([like, 5 * like])

    monkeypatch.setattr(model, "predict", two_functions)
    ((mean, std),) = trainer_of(runs).predict(model, data)
    (batch,) = batches_of(data)
    assert mean.shape == std.shape == batch.y.shape
    assert torch.allclose(mean, torch.tensor(1.0))  # (-1 + 3) / 2
    assert torch.allclose(std, torch.tensor(17.0).sqrt())  # mean of the variances, 13, and variance of the means, 4
