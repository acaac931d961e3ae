"""Attention of a decoder to an encoder: by its formula, for every score and normalizer."""

import pytest
import torch
from torch import nn

from attelbo.attention import (
    Additive,
    Attention,
    Concat,
    Dot,
    Entmax15,
    General,
    Location,
    Padding,
    Sigmoid,
    Softmax,
    Sparsemax,
)

B, T, S, D = 2, 3, 5, 4
SCORES = [lambda: Additive(1, D), lambda: Concat(1, D), Dot, lambda: General(1, D), lambda: Location(1, D, 9)]
MASK = Padding.of_lengths(torch.tensor([5, 2]), S)


@pytest.fixture(params=SCORES, ids=["additive", "concat", "dot", "general", "location"])
def score(request):
    torch.manual_seed(0)
    return request.param().double()


@pytest.mark.parametrize("normalizer", [Softmax(), Sparsemax(), Entmax15(), Sigmoid()], ids=lambda n: type(n).__name__)
def test_is_the_weighted_memory_and_the_state_that_asks(score, normalizer):
    attention = Attention(D, score=score, normalizer=normalizer)
    query, memory = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, S, D, dtype=torch.float64)
    output, weights = attention(query, memory, mask=MASK)
    for b, n in enumerate((5, 2)):
        for t in range(T):
            own = memory[b, :n]
            scores = score(query[b, t].view(1, 1, 1, D), own.view(1, 1, n, D))
            expected = normalizer(scores).flatten()
            torch.testing.assert_close(weights[b, t, :n], expected)
            assert (weights[b, t, n:] == 0).all()
            torch.testing.assert_close(output[b, t], query[b, t] + (expected.unsqueeze(-1) * own).sum(0))


def test_bahdanaus_formula():
    torch.manual_seed(0)
    score = Additive(1, D)
    attention = Attention(D, score=score)
    query, memory = torch.randn(1, 1, D), torch.randn(1, S, D)
    energies = torch.stack(
        [
            score.direction[0, :, 0] @ torch.tanh(query[0, 0] @ score.query_weight[0] + h @ score.key_weight[0])
            for h in memory[0]
        ]
    )
    torch.testing.assert_close(attention(query, memory)[1][0, 0], energies.exp() / energies.exp().sum())


def test_what_is_made_of_a_memory_once_serves_many_calls(score):
    attention = Attention(D, 6, score=score).double()
    query, memory = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, S, 6, dtype=torch.float64)
    assert isinstance(attention.projection, nn.Linear)
    known = attention.keys_values(memory)
    for t in range(T):
        one = attention(query[:, t : t + 1], known, mask=MASK)
        for part, whole in zip(one, attention(query, memory, mask=MASK), strict=True):
            torch.testing.assert_close(part, whole[:, t : t + 1])


def test_padding_is_not_seen(score):
    attention = Attention(D, score=score)
    query, memory = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, S, D, dtype=torch.float64)
    before = attention(query, memory, mask=MASK)
    poisoned = memory.masked_fill(~MASK.valid.unsqueeze(-1), 1e9)
    torch.testing.assert_close(attention(query, poisoned, mask=MASK), before)


def test_a_state_that_may_ask_nobody_stays_as_it_is(score):
    attention = Attention(D, score=score)
    query, memory = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, S, D, dtype=torch.float64)
    output, weights = attention(query, memory, mask=Padding(torch.zeros(B, S, dtype=torch.bool)))
    assert torch.equal(output, query)
    assert (weights == 0).all()


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="memory_dim must be at least 1, got 0"):
        Attention(D, 0, score=Dot())
