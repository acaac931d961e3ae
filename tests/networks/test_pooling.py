"""Pooling against its formulas; tokens that are not there have no say."""

import math

import pytest
import torch

from attelbo.networks import AttentionPooling, ClassToken, MeanPooling
from attelbo.networks.pooling import with_own

VALID = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]


def poolings() -> list:
    torch.manual_seed(0)
    return [ClassToken(4).double(), MeanPooling(), AttentionPooling(4, hidden=3).double()]


def tokens() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 5, 4, dtype=torch.float64)


def test_the_class_token_goes_first_and_is_what_is_left():
    pooling, x = ClassToken(4).double(), tokens()
    joined = pooling.join(x)
    assert joined.shape == (3, 6, 4)
    torch.testing.assert_close(joined[:, 1:], x)
    torch.testing.assert_close(pooling(joined), pooling.token.expand(3, 4))
    expected = torch.cat([torch.ones(3, 1, dtype=torch.bool), VALID], 1)
    assert torch.equal(with_own(VALID, pooling), expected)
    assert torch.equal(with_own(VALID, MeanPooling()), VALID)


def test_registers_go_behind_the_class_token_and_nothing_is_left_of_them():
    pooling, x = ClassToken(4, registers=3).double(), tokens()
    joined = pooling.join(x)
    assert joined.shape == (3, 9, 4)
    assert pooling.n_own == 4
    torch.testing.assert_close(joined[:, 1:4], pooling.registers.expand(3, 3, 4))
    torch.testing.assert_close(joined[:, 4:], x)
    torch.testing.assert_close(pooling(joined), pooling.token.expand(3, 4))
    assert torch.equal(with_own(VALID, pooling), torch.cat([torch.ones(3, 4, dtype=torch.bool), VALID], 1))
    with pytest.raises(ValueError, match="registers must be at least 0, got -1"):
        ClassToken(4, registers=-1)


def test_the_mean_is_of_those_that_are_there():
    x = tokens()
    expected = torch.stack([x[0].mean(0), x[1, :3].mean(0), x[2, 0]])
    torch.testing.assert_close(MeanPooling()(x, VALID), expected)
    torch.testing.assert_close(MeanPooling()(x), x.mean(1))


def test_attention_pooling_is_its_formula():
    pooling, x = poolings()[2].requires_grad_(False), tokens()
    u = pooling.query.weight[0]
    for row, length in enumerate((5, 3, 1)):
        scores = [float(torch.tanh(pooling.key.weight @ h + pooling.key.bias) @ u) for h in x[row, :length]]
        total = sum(math.exp(score) for score in scores)
        expected = sum(math.exp(score) / total * h for score, h in zip(scores, x[row], strict=False))
        torch.testing.assert_close(pooling(x, VALID)[row], expected)
    weights = pooling.weights(x, VALID)
    assert weights.shape == (3, 1, 1, 5)
    torch.testing.assert_close(weights[:, 0] @ x, pooling(x, VALID).unsqueeze(1))


@pytest.mark.parametrize("pooling", poolings(), ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("poison", [math.nan, 1e9])
def test_what_is_not_there_has_no_say(pooling, poison):
    x = pooling.join(tokens())
    valid = with_own(VALID, pooling)
    poisoned = x.masked_fill(~valid.unsqueeze(-1), poison)
    torch.testing.assert_close(pooling(poisoned, valid), pooling(x, valid))


@pytest.mark.parametrize("pooling", poolings()[1:], ids=lambda p: type(p).__name__)
def test_a_row_without_tokens_is_zeros_and_so_is_its_gradient(pooling):
    x = tokens().requires_grad_()
    pooled = pooling(x, torch.zeros(3, 5, dtype=torch.bool))
    assert (pooled == 0).all()
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    assert (gradient == 0).all()


def test_hidden_units_are_counted():
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        AttentionPooling(4, hidden=0)
