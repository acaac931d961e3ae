"""``untrained``: the words of a command are a model, the one that ``attelbo train`` begins with."""

import random
from typing import Any

import numpy as np
import pytest
import torch

import attelbo
from attelbo.errors import UserError
from attelbo.experiments import untrained
from attelbo.models import LanguageModel, VariationalAutoencoder


def test_it_is_the_model_that_a_training_begins_with(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("seed=3", "optimizer=sgd", "optimizer.lr=1e-30", "optimizer.momentum=0", "optimizer.nesterov=false")
    model, data = untrained(*runs.words(*words))
    assert isinstance(model, VariationalAutoencoder)
    trained = runs.fit(*words).lightning_module
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name], rtol=0, atol=1e-20)
    assert data.spec.name == "digits"
    assert list(tmp_path.iterdir()) == []


def test_it_takes_what_the_command_line_takes_and_refuses_what_that_refuses():
    model, data = untrained("data=sort", "model=gpt", "model.dim=8", "model.attention.heads=2")
    assert isinstance(model, LanguageModel)
    assert model(torch.zeros(2, *data.spec.shape, dtype=torch.int64)).shape == (2, *data.spec.shape, data.spec.n_tokens)
    with pytest.raises(UserError, match=r"model.dmi \(command line\): unknown key; did you mean model.dim\?"):
        untrained("data=sort", "model=gpt", "model.dmi=8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((["data=sort", "model=gpt"],), r"^each word is a string of its own, .*; got \['data=sort', 'model=gpt'\]$"),
        (("model=vae", 3), "^each word is a string of its own, .*; got 3$"),
        (("-m", "seed=1,2"), "^-m: one call is one run; "),
    ],
)
def test_words_that_are_none_are_told_in_a_line(words, said):
    with pytest.raises(UserError, match=said):
        untrained(*words)


def test_a_split_that_there_is_not_is_told():
    _, data = untrained("data=digits", "model=vae")
    absent: Any = "tset"
    for ask in (lambda: data.n_rows(absent), lambda: data.materialize(torch.arange(2), absent)):
        with pytest.raises(ValueError, match=r"^split must be one of train, validation, test, got 'tset'$"):
            ask()


@pytest.mark.parametrize("words", [(), ("model.latent_dim=0",)])
def test_the_random_numbers_of_the_program_around_it_go_on(runs, words):
    """Else everything that is drawn after each of several models is the same."""

    def drawn() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002

    def seeded() -> list[float]:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)
        return drawn()

    expected, states = seeded() + drawn(), []
    for make in (untrained, attelbo.train):
        states.append(seeded())
        try:
            make(*runs.words("trainer.max_epochs=1", *words))
        except UserError:
            assert words
        states[-1] += drawn()
    assert states == [expected, expected]
