"""The likelihood of texts against torch.distributions: a sum over tokens, none over padding."""

import pytest
import torch
from torch import distributions as D

from attelbo.latent.likelihoods.tokens import CategoricalTokens

N, B, T, V, PAD = 2, 3, 5, 7, 0


def likelihood() -> CategoricalTokens:
    return CategoricalTokens(T, V, PAD)


def eta() -> torch.Tensor:
    return torch.randn(N, B, T, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


X = torch.tensor([[3, 4, 2, 0, 0], [5, 6, 3, 4, 2], [2, 0, 0, 0, 0]])


def test_log_prob_is_the_sum_of_torchs_over_what_is_there() -> None:
    found = likelihood().log_prob(eta(), X)
    each = D.Categorical(logits=eta()).log_prob(X.expand(N, -1, -1))
    torch.testing.assert_close(found, (each * (X != PAD)).sum(-1))
    assert found.shape == (N, B)


def test_padding_may_say_anything_and_has_no_gradient() -> None:
    logits = eta().requires_grad_()
    likelihood().log_prob(logits, X).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, X == PAD] == 0).all()
    assert (logits.grad[:, X != PAD] != 0).any()
    poisoned = eta()
    poisoned[:, X == PAD] = 1e9
    assert (likelihood().log_prob(poisoned, X) == likelihood().log_prob(eta(), X)).all()


def test_bfloat16_is_summed_in_full_precision() -> None:
    low = eta().bfloat16()
    found = likelihood().log_prob(low, X)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, likelihood().log_prob(low.float(), X))


def test_the_likeliest_and_drawn_tokens() -> None:
    sure = torch.full((1, 1, T, V), -100.0)
    sure[0, 0, torch.arange(T), X[1]] = 0.0
    assert (likelihood().mean(sure)[0, 0] == X[1]).all()
    assert (likelihood().sample(sure)[0, 0] == X[1]).all()
    torch.manual_seed(0)
    drawn = likelihood().sample(eta()[:1, :1, :1].expand(20_000, -1, -1, -1)).flatten()
    share = torch.bincount(drawn, minlength=V) / len(drawn)
    torch.testing.assert_close(share.double(), eta()[0, 0, 0].softmax(-1), atol=0.015, rtol=0)


@pytest.mark.parametrize(("numbers", "told"), [((0, V), "length"), ((T, 0), "n_tokens")])
def test_numbers_out_of_range(numbers, told) -> None:
    with pytest.raises(ValueError, match=rf"^{told} must be at least 1, got 0$"):
        CategoricalTokens(*numbers, PAD)
