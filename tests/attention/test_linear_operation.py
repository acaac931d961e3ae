"""Linear attention and its feature maps against sums written out, softmax attention, and their own derivatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attelbo.attention.linear import (
    EluFeatures,
    PositiveRandomFeatures,
    causal_linear_attention,
    linear_attention,
)
from attelbo.attention.linear.operation import CHUNK, _in_chunks

sizes = st.integers(1, 6)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explicit(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """The definition, one query at a time."""
    rows = []
    for t in range(q.shape[-2]):
        seen = slice(0, t + 1 if causal else None)
        weights = (q[:, :, t : t + 1] * k[:, :, seen]).sum(-1)
        rows.append((weights.unsqueeze(-1) * v[:, :, seen]).sum(-2) / weights.sum(-1, keepdim=True))
    return torch.stack(rows, -2)


@settings(max_examples=25, deadline=None)
@given(batch=sizes, heads=sizes, queries=sizes, keys=sizes, features=sizes, width=sizes)
def test_equals_the_definition(batch: int, heads: int, queries: int, keys: int, features: int, width: int) -> None:
    q, k = draw(batch, heads, queries, features).exp(), draw(batch, heads, keys, features, seed=1).exp()
    v = draw(batch, heads, keys, width, seed=2)
    torch.testing.assert_close(linear_attention(q, k, v), explicit(q, k, v, causal=False))


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_causal_equals_the_definition_at_every_place_in_a_chunk(length: int) -> None:
    q, k, v = draw(2, 2, length, 3).exp(), draw(2, 2, length, 3, seed=1).exp(), draw(2, 2, length, 4, seed=2)
    torch.testing.assert_close(causal_linear_attention(q, k, v)[0], explicit(q, k, v, causal=True))


def test_no_tokens_give_nothing_and_leave_the_sums_as_they_are() -> None:
    q, k, v, sums = draw(2, 2, 0, 3), draw(2, 2, 0, 3), draw(2, 2, 0, 4), draw(2, 2, 3, 5).exp()
    out, after = causal_linear_attention(q, k, v, sums)
    assert out.shape == (2, 2, 0, 4)
    assert torch.equal(after, sums)
    assert causal_linear_attention(q, k, v)[0].shape == (2, 2, 0, 4)


@pytest.mark.parametrize(("length", "computed"), [(CHUNK, CHUNK), (CHUNK + 2, CHUNK + 2), (3 * CHUNK - 1, 3 * CHUNK)])
def test_chunks_are_even(length: int, computed: int) -> None:
    """So that hardly any place is computed in vain."""
    chunks = _in_chunks(draw(1, 1, length, 2), -(-length // CHUNK))
    assert math.prod(chunks.shape[2:4]) == computed


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 1, 3], [9], [2, CHUNK + 3, 1], [CHUNK, CHUNK, 7]])
def test_going_on_from_the_sums_equals_all_at_once(pieces: list[int]) -> None:
    """With pieces of one token it is the recurrent network of the paper."""
    length = sum(pieces)
    q, k, v = draw(2, 2, length, 3).exp(), draw(2, 2, length, 3, seed=1).exp(), draw(2, 2, length, 4, seed=2)
    outputs, sums = [], None
    for part in zip(*(t.split(pieces, 2) for t in (q, k, v)), strict=True):
        out, sums = causal_linear_attention(*part, sums)
        outputs.append(out)
    whole, last = causal_linear_attention(q, k, v)
    torch.testing.assert_close(torch.cat(outputs, 2), whole)
    torch.testing.assert_close(sums, last)


def test_the_last_query_of_the_causal_form_sees_what_all_see_in_the_other() -> None:
    q, k, v = draw(1, 2, 200, 3).exp(), draw(1, 2, 200, 3, seed=1).exp(), draw(1, 2, 200, 4, seed=2)
    torch.testing.assert_close(causal_linear_attention(q, k, v)[0][:, :, -1], linear_attention(q, k, v)[:, :, -1])


def test_gradients_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attelbo.attention.linear.operation.CHUNK", 3)
    q, k, v = (t.requires_grad_() for t in (draw(1, 2, 5, 3).exp(), draw(1, 2, 5, 3, seed=1).exp(), draw(1, 2, 5, 2)))
    sums = draw(1, 2, 3, 3, seed=3).exp().requires_grad_()
    assert torch.autograd.gradcheck(linear_attention, (q, k, v))
    assert torch.autograd.gradcheck(causal_linear_attention, (q, k, v, sums))
    assert torch.autograd.gradgradcheck(linear_attention, (q, k, v))


def test_keys_without_features_take_no_part_and_where_all_are_the_output_is_zero() -> None:
    q, k, v = draw(1, 1, 4, 3).exp(), draw(1, 1, 4, 3, seed=1).exp(), draw(1, 1, 4, 2, seed=2)
    some = k.clone()
    some[:, :, 2:] = 0
    torch.testing.assert_close(linear_attention(q, some, v), linear_attention(q, k[:, :, :2], v[:, :, :2]))
    none = torch.zeros_like(k).requires_grad_()
    for out in (linear_attention(q, none, v), causal_linear_attention(q, none, v)[0]):
        assert (out == 0).all()
        (gradient,) = torch.autograd.grad(out.sum(), none)
        assert gradient.isfinite().all()


def test_no_tensor_grows_with_the_square_of_the_length() -> None:
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest[-1] = max([largest[-1], *(t.numel() for t in torch.utils._pytree.tree_leaves(out))])
            return out

    for length in (4 * CHUNK, 16 * CHUNK):
        largest.append(0)
        q, k, v = (torch.rand(1, 1, length, 8, requires_grad=True) for _ in range(3))
        with Watch():
            causal_linear_attention(q, k, v)[0].sum().backward()
    assert largest[1] <= 4 * largest[0]


def test_elu_features_are_positive_and_as_many() -> None:
    x = torch.linspace(-30, 30, 13, dtype=torch.float64)
    phi, log_factor = EluFeatures()(x)
    assert log_factor is None
    torch.testing.assert_close(phi, torch.where(x > 0, x + 1, x.exp()))


def kernel_of(features: PositiveRandomFeatures, q: Tensor, k: Tensor) -> Tensor:
    """phi(q) . phi(k), with all factors."""
    (u, log_a), (w, log_b) = features(q), features(k)
    return (u @ w.mT) * (log_a + log_b.mT).exp() / len(features.directions)


@pytest.mark.parametrize("n_features", [3, 4, 10])
def test_random_features_estimate_the_exponential_without_bias(n_features: int) -> None:
    """The mean of 4,000 draws is within 4 standard errors, for fewer features than D, as many, and more."""
    torch.manual_seed(0)
    features = PositiveRandomFeatures(4, n_features).double()
    q, k = 0.3 * draw(3, 4), 0.3 * draw(5, 4, seed=1)
    estimates = []
    for _ in range(4000):
        features.redraw()
        estimates.append(kernel_of(features, q, k))
    estimate = torch.stack(estimates)
    error = estimate.std(0) / math.sqrt(len(estimate))
    assert (error < 0.05).all()
    assert ((estimate.mean(0) - (q @ k.mT / 2).exp()).abs() < 4 * error).all()


def test_random_features_within_a_block_are_orthogonal_with_the_lengths_of_independent_ones() -> None:
    torch.manual_seed(0)
    features = PositiveRandomFeatures(8, 8 * 500 + 3).double()
    blocks = features.directions[:-3].unflatten(0, (500, 8))
    gram = blocks @ blocks.mT
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    assert (gram - torch.diag_embed(lengths)).abs().max() < 1e-5  # drawn in float32
    assert lengths.mean().item() == pytest.approx(8, abs=4 * 4 / math.sqrt(4000))  # chi squared: mean 8, std 4
    assert lengths.std().item() == pytest.approx(4, rel=0.1)
    moment = features.directions.mT @ features.directions / len(features.directions)
    torch.testing.assert_close(moment, torch.eye(8, dtype=torch.float64), atol=0.1, rtol=0)


def test_orthogonal_features_vary_less_than_independent_ones() -> None:
    torch.manual_seed(0)
    q, k = 0.3 * draw(6, 8), 0.3 * draw(6, 8, seed=1)  # of longer ones the error is that of a few wild draws
    exact = (q @ k.mT / math.sqrt(8)).exp()
    features = PositiveRandomFeatures(8, 8).double()

    def error() -> Tensor:
        return ((kernel_of(features, q, k) - exact) / exact).square().mean()

    orthogonal, independent = [], []
    for _ in range(1000):
        features.redraw()
        orthogonal.append(error())
        features.directions.normal_()
        independent.append(error())
    assert torch.stack(orthogonal).mean() < 0.95 * torch.stack(independent).mean()


def test_random_features_do_not_overflow_and_what_is_held_back_is_told() -> None:
    torch.manual_seed(0)
    features = PositiveRandomFeatures(16, 64)
    phi, log_factor = features(torch.randn(4, 16) * torch.tensor([[0.0], [1.0], [30.0], [1000.0]]))
    assert phi.isfinite().all()
    assert log_factor.isfinite().all()
    assert (phi.amax(-1) == 1).all()


def test_random_features_by_finite_differences() -> None:
    torch.manual_seed(0)
    features = PositiveRandomFeatures(3, 5).double()
    x = draw(2, 3).requires_grad_()

    def phi(x: Tensor) -> Tensor:
        u, log_factor = features(x)
        return u * log_factor.exp()

    def derivative(x: Tensor) -> Tensor:
        """u's, with the factor held: that of phi itself."""
        u, log_factor = features(x)
        return u * log_factor.detach().exp()

    jacobian = torch.autograd.functional.jacobian(derivative, x.detach())
    step = 1e-6
    for i in range(2):
        for d in range(3):
            moved = torch.zeros(2, 3, dtype=torch.float64)
            moved[i, d] = step
            with torch.no_grad():
                slope = (phi(x + moved) - phi(x - moved)) / (2 * step)
            torch.testing.assert_close(jacobian[..., i, d], slope, atol=1e-7, rtol=1e-6)


def test_redraw_is_explicit() -> None:
    torch.manual_seed(0)
    features = PositiveRandomFeatures(4, 8)
    x = torch.randn(3, 4)
    before, _ = features(x)
    assert torch.equal(features(x)[0], before)
    assert "directions" in features.state_dict()
    features.redraw()
    assert not torch.equal(features(x)[0], before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 4, "n_features": 0}, "n_features must be at least 1, got 0"),
        ({"dim": 4, "scale": 0.0}, r"scale must be positive, got 0\.0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PositiveRandomFeatures(**arguments)
