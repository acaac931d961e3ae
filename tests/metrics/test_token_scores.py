"""Scores of tokens against sums by hand, however the tokens come in batches."""

import math

import pytest
import torch

from attelbo.metrics import TokenScores

LOGITS = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[0.0, math.log(3)], [0.0, 9.0]]])
TARGET = torch.tensor([[1, 0], [0, -1]])
NATS = math.log(2) + math.log(4 / 3) + math.log(4)


def test_sums_by_hand():
    scores = TokenScores(characters=(3, 1), answers=True)
    scores.update(LOGITS[TARGET >= 0], TARGET)
    expected = {
        "loss": NATS / 3,
        "perplexity": math.exp(NATS / 3),
        "accuracy": 1 / 3,  # where both are equally likely the first one counts
        "bits_per_character": NATS / math.log(2) / (1 + 3 + 3),
        "exact": 0.0,
    }
    assert {name: float(value) for name, value in scores.compute().items()} == pytest.approx(expected, rel=1e-6)
    scores.update(LOGITS[0], torch.tensor([[0, 0]]))
    assert float(scores.compute()["exact"]) == pytest.approx(1 / 3)
    scores.update(LOGITS[0, :0], torch.tensor([[-1, -1]]))  # nothing was asked
    assert float(scores.compute()["exact"]) == pytest.approx(1 / 3)


def test_the_batches_are_no_matter():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, 4, generator=generator)
    target = torch.randint(-1, 4, (7, 5), generator=generator)
    at_once, in_parts = TokenScores(), TokenScores()
    at_once.update(logits[target >= 0], target)
    for rows in torch.arange(7).split(2):
        in_parts.update(logits[rows][target[rows] >= 0], target[rows])
    for name, value in at_once.compute().items():
        torch.testing.assert_close(in_parts.compute()[name], value)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1)
    torch.testing.assert_close(at_once.compute()["loss"], expected)
    assert set(at_once.compute()) == {"loss", "perplexity", "accuracy"}  # nothing is known of characters or answers


def test_hidden_tokens_have_no_perplexity():
    """Their conditional probabilities are no density of the text."""
    scores = TokenScores(hidden=True)
    scores.update(LOGITS[TARGET >= 0], TARGET)
    assert set(scores.compute()) == {"loss", "accuracy"}
