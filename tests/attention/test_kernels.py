"""Every kernel against the definition, torch's own function, and its derivatives by finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from attention_contract import TRAINABLE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attelbo.attention import (
    KERNELS,
    Causal,
    LearnedSink,
    Mechanism,
    Padding,
    ScaledDot,
    SlidingWindow,
    Softmax,
    SoftmaxOffByOne,
    attention_weights,
)


def scaled(scale: float) -> Mechanism:
    return Mechanism(ScaledDot(1, scale))


eager, sdpa = KERNELS["eager"], KERNELS["sdpa"]

size = st.integers(1, 9)


def draw(batch: int, heads: int, queries: int, keys: int, features: int, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)

    def normal(tokens: int) -> Tensor:
        return torch.randn(batch, heads, tokens, features, generator=g, dtype=torch.float64)

    return normal(queries), normal(keys), normal(keys)


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in TRAINABLE], ids=TRAINABLE)
def test_equals_the_definition_written_with_loops(kernel) -> None:
    q, k, v = draw(2, 3, 4, 5, 2)
    expected = torch.zeros_like(q)
    for b in range(2):
        for n in range(3):
            for t in range(4):
                scores = [math.exp(0.7 * float(q[b, n, t] @ k[b, n, s])) for s in range(5)]
                for s in range(5):
                    expected[b, n, t] += scores[s] / sum(scores) * v[b, n, s]
    torch.testing.assert_close(kernel(q, k, v, scaled(0.7), dropout=0.0), expected)


@settings(max_examples=25, deadline=None)
@given(batch=size, heads=size, queries=size, keys=size, features=size, seed=st.integers(0, 1000))
def test_eager_sdpa_and_torch_agree(batch: int, heads: int, queries: int, keys: int, features: int, seed: int) -> None:
    q, k, v = draw(batch, heads, queries, keys, features, seed)
    scale = features**-0.5
    reference = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(eager(q, k, v, scaled(scale), dropout=0.0), reference)
    torch.testing.assert_close(sdpa(q, k, v, scaled(scale), dropout=0.0), reference)


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in TRAINABLE], ids=TRAINABLE)
def test_gradients_by_finite_differences(kernel) -> None:
    inputs = tuple(t.requires_grad_() for t in draw(2, 2, 3, 4, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: kernel(q, k, v, scaled(0.5), dropout=0.0), inputs)


def test_eager_can_be_differentiated_twice() -> None:
    inputs = tuple(t.requires_grad_() for t in draw(1, 2, 2, 3, 2))
    assert torch.autograd.gradgradcheck(lambda q, k, v: eager(q, k, v, scaled(0.5), dropout=0.0), inputs)


def colder(normalizer: type) -> type:
    """One of its own that divides scores by a temperature of one half."""
    return type(
        "Colder", (normalizer,), {"normalize": lambda self, scores: super(type(self), self).normalize(2 * scores)}
    )


class Doubled(ScaledDot):
    """A score that compares in a way of its own."""

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        return 2 * super().compare(query, key)


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in KERNELS], ids=KERNELS)
@pytest.mark.parametrize("kind", [Softmax, SoftmaxOffByOne, LearnedSink, None])
def test_a_part_derived_from_a_known_one_is_not_computed_as_that_one(kernel, kind) -> None:
    q, k, v = draw(2, 3, 4, 5, 2)
    if kind is None:
        mine, known = Mechanism(Doubled(1, 0.7)), Mechanism(ScaledDot(1, 1.4))
    else:
        given = (3,) if kind is LearnedSink else ()
        mine, known = Mechanism(ScaledDot(1, 0.7), colder(kind)(*given)), Mechanism(ScaledDot(1, 1.4), kind(*given))
    with torch.no_grad():
        if refused := kernel.refuses(mine, dropout=0.0, mask=None):
            assert kernel.name in ("sdpa", "flex")
            assert any(name in refused for name in ("not Colder", "Doubled is no dot product"))
        else:
            torch.testing.assert_close(kernel(q, k, v, mine, dropout=0.0), eager(q, k, v, known, dropout=0.0))


@pytest.mark.parametrize("magnitude", [1.0, 1e6])
def test_rows_of_weights_sum_to_one(magnitude: float) -> None:
    q, k, _ = draw(2, 3, 4, 5, 2)
    weights = attention_weights(magnitude * q, k, scaled(1.0))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in TRAINABLE], ids=TRAINABLE)
def test_dropout_drops_and_keeps_the_mean(kernel) -> None:
    torch.manual_seed(0)
    q, k, v = (t.expand(20_000, -1, -1, -1) for t in draw(1, 1, 2, 4, 2))
    dropped = kernel(q, k, v, scaled(1.0), dropout=0.3)
    assert dropped.std(0).min() > 0.1
    # Standard error about 0.7 / sqrt(20000) = 0.005.
    torch.testing.assert_close(dropped.mean(0), eager(q[:1], k[:1], v[:1], scaled(1.0))[0], atol=0.025, rtol=0)


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in TRAINABLE], ids=TRAINABLE)
def test_dropout_drops_in_a_local_window_too(kernel) -> None:
    q, k, v = (torch.ones(200, 1, 140, 1, dtype=torch.float64) for _ in range(3))
    dropped = kernel(q, k, v, scaled(1.0), mask=Causal() & SlidingWindow(2), dropout=0.3)
    # The first query has one key, whose weight 1 is kept as 1 / 0.7 or dropped; the others two with a half each.
    kept = torch.arange(3, dtype=torch.float64) / 1.4
    torch.testing.assert_close(dropped[:, :, 1:].unique(), kept)
    torch.testing.assert_close(dropped[:, :, 0].unique(), kept[[0, 2]])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kernel", [KERNELS[name] for name in TRAINABLE], ids=TRAINABLE)
def test_a_query_with_nothing_to_attend_to_gets_zeros_and_moves_nothing(kernel) -> None:
    q, k, v = (t.requires_grad_() for t in draw(2, 2, 3, 3, 2))
    valid = torch.tensor([[True, True, False], [False, False, False]])
    output = kernel(q, k, v, scaled(0.5), mask=Causal() & Padding(valid))
    assert (output[1] == 0).all()
    gradients = torch.autograd.grad(output.square().sum(), (q, k, v))
    assert all((gradient[1] == 0).all() and gradient.isfinite().all() for gradient in gradients)
    assert all((gradient[0, :, 2] == 0).all() for gradient in gradients[1:])
