"""Linear attention as a module: recurrent and parallel, masks, and softmax attention as its limit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import Causal, MultiHeadAttention, Padding
from attelbo.attention.linear import (
    EluFeatures,
    LinearAttention,
    LinearCache,
    PositiveRandomFeatures,
)

MAPS = {"elu": lambda: EluFeatures(), "random": lambda: PositiveRandomFeatures(4, 16)}
maps = pytest.mark.parametrize("feature_map", MAPS)


def made(feature_map: str = "elu", *, std: float = 0.4, **options: Any) -> LinearAttention:
    """Of 8 features and 2 heads, in float64, with random weights and biases."""
    torch.manual_seed(0)
    attention = LinearAttention(8, 2, feature_map=MAPS[feature_map](), **options).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=std)
    return attention


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(attention: LinearAttention, query: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
    """The output from all weights written out, allowed (T, S)."""
    q, _, _ = attention.qkv(query).chunk(3, -1)
    _, k, v = attention.qkv(memory).chunk(3, -1)
    heads = []
    for rows in (slice(0, 4), slice(4, 8)):
        (u, log_a), (w, log_b) = attention.feature_map(q[..., rows]), attention.feature_map(k[..., rows])
        a, b = (u, w) if log_a is None or log_b is None else (u * log_a.exp(), w * log_b.exp())
        weights = (a @ b.mT) * allowed
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., rows])
    return attention.output(torch.cat(heads, -1))


@maps
def test_equals_the_quadratic_formula(feature_map: str) -> None:
    x, memory = tokens(3, 7, 8), tokens(3, 5, 8, seed=2)
    every = torch.ones(7, 7, dtype=torch.float64)
    both_ways, causal = made(feature_map), made(feature_map, causal=True)
    torch.testing.assert_close(both_ways(x), quadratic(both_ways, x, x, every))
    torch.testing.assert_close(both_ways(x, memory), quadratic(both_ways, x, memory, every[:, :5]))
    torch.testing.assert_close(causal(x), quadratic(causal, x, x, every.tril()))


@maps
@pytest.mark.parametrize("causal", [False, True])
def test_the_weights_times_the_values_are_the_output(feature_map: str, causal: bool) -> None:
    attention, x = made(feature_map, causal=causal), tokens(3, 7, 8)
    valid = torch.tensor([7, 4, 0])[:, None] > torch.arange(7)
    weights = attention.weights(x, mask=Padding(valid))
    assert weights.shape == (3, 2, 7, 7)
    assert (weights.masked_select(~valid[:, None, None]) == 0).all()
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 7, dtype=torch.float64))
    values = attention.qkv(x)[..., 16:].unflatten(-1, (2, 4)).transpose(1, 2)
    expected = attention.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, mask=Padding(valid)), expected)


@maps
@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 1, 1], [3, 4]])
def test_token_by_token_equals_all_at_once(feature_map: str, pieces: list[int]) -> None:
    attention, x = made(feature_map, causal=True), tokens(2, 7, 8)
    cache = LinearCache()
    outputs = [attention(part, cache=cache) for part in x.split(pieces, 1)]
    torch.testing.assert_close(torch.cat(outputs, 1), attention(x))
    assert cache.length == 7


def test_a_key_much_larger_than_those_before_goes_into_the_sums() -> None:
    """In float32 its features would be infinite."""
    torch.manual_seed(0)
    attention = LinearAttention(8, 2, feature_map=PositiveRandomFeatures(4, 16), causal=True)
    x = torch.randn(1, 6, 8) * torch.tensor([0.1, 1.0, 1.0, 40.0, 1.0, 40.0])[:, None]
    cache = LinearCache()
    outputs = torch.cat([attention(part, cache=cache) for part in x.split(1, 1)], 1)
    assert outputs.isfinite().all()
    exact = attention.double()(x.double())
    torch.testing.assert_close(outputs.double(), exact, atol=1e-4, rtol=1e-3)


def test_a_reordered_cache_goes_on_with_other_rows() -> None:
    attention, x = made("random", causal=True), tokens(3, 6, 8)
    cache, rows = LinearCache(), torch.tensor([2, 2, 0])
    attention(x[:, :4], cache=cache)
    cache.reorder(rows)
    chosen = torch.cat([x[rows, :4], x[:, 4:]], 1)
    torch.testing.assert_close(attention(x[:, 4:], cache=cache), attention(chosen)[:, 4:])


@maps
def test_no_token_is_influenced_by_those_behind_it(feature_map: str) -> None:
    attention, x = made(feature_map, causal=True), tokens(1, 5, 8).requires_grad_()
    out = attention(x)
    for t in range(5):
        (gradient,) = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)
        influence = gradient[0].abs().sum(-1)
        assert (influence[: t + 1] > 0).all()
        assert (influence[t + 1 :] == 0).all()


@maps
@pytest.mark.parametrize("poison", [math.nan, 1e9])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_has_no_influence_whatever_is_in_it(feature_map: str, poison: float, causal: bool) -> None:
    attention, x = made(feature_map, causal=causal), tokens(2, 6, 8)
    valid = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 1]], dtype=torch.bool)
    out = attention(x.masked_fill(~valid.unsqueeze(-1), poison), mask=Padding(valid))
    for row, there in enumerate(valid):
        torch.testing.assert_close(out[row, there], attention(x[row, there].unsqueeze(0))[0])


@maps
def test_where_there_is_no_key_the_heads_are_zero(feature_map: str) -> None:
    attention, x = made(feature_map), tokens(2, 3, 8).requires_grad_()
    out = attention(x, mask=Padding(torch.tensor([[False] * 3, [True] * 3])))
    torch.testing.assert_close(out[0], attention.output.bias.expand(3, 8))
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert (gradient[0] == 0).all()
    assert gradient.isfinite().all()


@maps
def test_gradients_by_finite_differences(feature_map: str) -> None:
    both_ways, causal, x = made(feature_map), made(feature_map, causal=True), tokens(1, 3, 8).requires_grad_()
    assert torch.autograd.gradcheck(both_ways, (x,))
    assert torch.autograd.gradcheck(causal, (x,))


@maps
@pytest.mark.parametrize("causal", [False, True])
def test_every_parameter_learns(feature_map: str, causal: bool) -> None:
    attention = made(feature_map, causal=causal)
    attention(tokens(2, 5, 8)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("causal", [False, True])
def test_random_features_estimate_softmax_attention_within_the_standard_error(causal: bool) -> None:
    """Of 60 draws, with the weights of a MultiHeadAttention. A ratio of estimates is biased by O(1 / F): by a tenth of
    a standard error here."""
    torch.manual_seed(0)
    softmax = MultiHeadAttention(8, 2, mask=Causal() if causal else None).double()
    features = PositiveRandomFeatures(4, 4096)
    attention = LinearAttention(8, 2, feature_map=features, causal=causal).double()
    attention.load_state_dict(softmax.state_dict(), strict=False)
    x, estimates = 0.4 * tokens(2, 6, 8), []
    for _ in range(60):
        features.redraw()
        estimates.append(attention(x))
    error = torch.stack(estimates).std(0) / math.sqrt(60)
    assert error.max() < 0.01
    assert ((torch.stack(estimates).mean(0) - softmax(x)).abs() < 4.5 * error + 1e-9).all()


def test_starts_like_multi_head_attention() -> None:
    torch.manual_seed(0)
    theirs = MultiHeadAttention(8, 2).state_dict()
    torch.manual_seed(0)
    ours = LinearAttention(8, 2).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_sums_are_taken_in_float32_under_autocast() -> None:
    attention = made().float()
    x = tokens(1, 2000, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), attention(x), atol=0.02, rtol=0.02)


@maps
@pytest.mark.parametrize("causal", [False, True])
def test_can_be_stacked_by_vmap(feature_map: str, causal: bool) -> None:
    attention, x = made(feature_map, causal=causal), tokens(3, 2, 5, 8)
    valid = torch.tensor([[1, 1, 1, 0, 1]] * 2, dtype=torch.bool)
    stacked = torch.vmap(lambda x: attention(x, mask=Padding(valid)))(x)
    torch.testing.assert_close(stacked, torch.stack([attention(one, mask=Padding(valid)) for one in x]))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"heads must divide the 12 features of a token: .* got 5"):
        LinearAttention(12, 5)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        LinearAttention(0, 1)


def test_what_cannot_be_computed_is_refused() -> None:
    x = tokens(1, 3, 8)
    with pytest.raises(ValueError, match="its mask can only be Padding, got Causal"):
        made()(x, mask=Causal())
    with pytest.raises(ValueError, match="causal linear attention has no memory"):
        made(causal=True)(x, x)
    with pytest.raises(ValueError, match="only causal linear attention has a cache"):
        made()(x, cache=LinearCache())
