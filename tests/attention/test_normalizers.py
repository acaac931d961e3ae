"""Every normalizer against its definition, sparse ones by bisection, and what all of them have in common."""

import math
from collections.abc import Callable

import pytest
import torch
from attention_contract import HEADS, build_part, names, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attelbo.attention import LearnedSink, Sigmoid, SoftmaxOffByOne, TopK


def by_bisection(weight: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """weight(z - tau) of the tau by which they sum to one, in 100 halvings of the interval where it lies."""
    low, high = z.max() - 1, z.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if weight(z - middle).sum() > 1 else (low, middle)
    return weight(z - low)


DEFINITIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "entmax15": lambda z, _: by_bisection(lambda rest: rest.clamp(min=0) ** 2, z / 2),
    "learned_sink": lambda z, sink: z.exp() / (math.exp(sink) + z.exp().sum()),
    "sigmoid": lambda z, _: 1 / (1 + len(z) * (-z).exp()),
    "softmax": lambda z, _: z.exp() / z.exp().sum(),
    "softmax_off_by_one": lambda z, _: z.exp() / (1 + z.exp().sum()),
    "sparsemax": lambda z, _: by_bisection(lambda rest: rest.clamp(min=0), z),
    "top_k": lambda z, _: torch.softmax(z.where(z >= z.sort(descending=True).values[: TopK().k][-1], -torch.inf), -1),
}
"""Of one row of scores, and what its head has learned."""


@pytest.mark.parametrize("name", names("normalizer"))
@settings(max_examples=30, deadline=None)
@given(n_keys=st.integers(1, 12), seed=st.integers(0, 1000), spread=st.sampled_from([0.01, 0.3, 1.0, 5.0]))
def test_is_its_definition(name: str, n_keys: int, seed: int, spread: float) -> None:
    scores, normalizer = spread * normal(HEADS, 3, n_keys, seed=seed), build_part("normalizer", name)
    learned = getattr(normalizer, "logits", torch.zeros(HEADS)).tolist()
    weights = normalizer(scores)
    for n in range(HEADS):
        for t in range(3):
            expected = DEFINITIONS[name](scores[n, t], learned[n])
            torch.testing.assert_close(weights[n, t], expected, rtol=1e-9, atol=1e-12)


TIED = {
    "two apart": torch.tensor([0.0, -2, -2, -2, -2]),
    "one apart": torch.tensor([0.0, -1, -1, -1]),
    "tenths": torch.tensor([-0.9, -0.9, -0.8, 0.0]),
    "fifths": torch.randint(-6, 3, (40_000, 12), generator=torch.Generator().manual_seed(0)) / 5,
    "thirds": torch.randint(-6, 3, (40_000, 12), generator=torch.Generator().manual_seed(1)) / 3,
}
"""Scores of which several are tied where the support ends, so that rounding says on which side of the end they are."""


@pytest.mark.parametrize("scores", TIED)
@pytest.mark.parametrize("name", ["entmax15", "sparsemax"])
def test_ties_at_the_end_of_the_support_change_nothing(name: str, scores: str) -> None:
    z = TIED[scores].clone().requires_grad_()
    weights = build_part("normalizer", name)(z)
    torch.testing.assert_close(weights.sum(-1), torch.ones(z.shape[:-1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(weights, build_part("normalizer", name)(z.double()).float(), rtol=0, atol=1e-4)
    weights.square().sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_a_sigmoid_may_have_a_bias_of_its_own() -> None:
    scores, allowed = normal(HEADS, 3, 5, seed=0), torch.tensor([True, True, False, True, False])
    expected = 1 / (1 + (0.7 - scores).exp())
    torch.testing.assert_close(Sigmoid(-0.7)(scores), expected)
    torch.testing.assert_close(Sigmoid(-0.7)(scores, allowed), expected * allowed)


@pytest.mark.parametrize("name", names("normalizer"))
@pytest.mark.parametrize("allowed", [None, torch.tensor([True, True, True, False])])
def test_a_score_that_is_nan_shows_in_the_weights_of_its_query_only(name: str, allowed: Tensor | None) -> None:
    scores, normalizer = normal(HEADS, 3, 4), build_part("normalizer", name)
    expected = normalizer(scores, allowed)
    scores[:, 1, 2] = math.nan
    weights = normalizer(scores, allowed)
    assert weights[:, 1, 2].isnan().all()
    torch.testing.assert_close(weights[:, ::2], expected[:, ::2])


@pytest.mark.parametrize("name", names("normalizer"))
@settings(max_examples=20, deadline=None)
@given(n_keys=st.integers(1, 9), seed=st.integers(0, 1000))
def test_masked_keys_count_as_if_they_were_not_there(name: str, n_keys: int, seed: int) -> None:
    normalizer, scores = build_part("normalizer", name), normal(HEADS, 1, n_keys, seed=seed)
    allowed = torch.rand(n_keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    poisoned = scores.masked_fill(~allowed, 1e30)
    weights = normalizer(poisoned, allowed)
    assert (weights[..., ~allowed] == 0).all()
    if allowed.any():
        torch.testing.assert_close(weights[..., allowed], normalizer(scores[..., allowed]))


@pytest.mark.parametrize("name", names("normalizer"))
def test_a_score_of_minus_infinity_has_no_weight_and_no_gradient(name: str) -> None:
    scores = torch.tensor([0.3, -torch.inf, 0.1], dtype=torch.float64).repeat(HEADS, 1, 1).requires_grad_()
    weights = build_part("normalizer", name)(scores)
    (gradient,) = torch.autograd.grad(weights.square().sum(), scores)
    assert (weights[..., 1] == 0).all()
    assert (gradient[..., 1] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", names("normalizer"))
def test_a_row_with_nothing_allowed_has_no_weight_and_no_gradient(name: str) -> None:
    scores = normal(HEADS, 2, 3).requires_grad_()
    allowed = torch.tensor([[True, True, False], [False, False, False]])
    weights = build_part("normalizer", name)(scores, allowed)
    (gradient,) = torch.autograd.grad(weights.square().sum(), scores)
    assert (weights[:, 1] == 0).all()
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, 0, 2] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", names("normalizer"))
def test_first_and_second_derivatives_by_finite_differences(name: str) -> None:
    normalizer, scores = build_part("normalizer", name), normal(HEADS - 1, 3, 5)
    scores = torch.cat([scores, torch.tensor([[[0.0, 3.0, 0.1, -4.0, 0.2]] * 3])]).requires_grad_()  # one key takes all
    allowed = torch.tensor([True, True, False, True, True])
    for arguments in ((), (allowed,)):
        assert torch.autograd.gradcheck(lambda z, arguments=arguments: normalizer(z, *arguments), (scores,))
        assert torch.autograd.gradgradcheck(lambda z, arguments=arguments: normalizer(z, *arguments), (scores,))


@pytest.mark.parametrize("name", names("normalizer"))
@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 1e4, 1e30])
def test_weights_are_weights_whatever_the_size_of_the_scores(name: str, magnitude: float) -> None:
    scores = (magnitude * normal(HEADS, 1, 300)).float().requires_grad_()
    weights = build_part("normalizer", name)(scores)
    assert ((weights >= 0) & (weights <= 1)).all()
    if name != "sigmoid":
        total = weights.sum(-1)
        assert (total <= 1 + 1e-6).all()
        assert name in ("softmax_off_by_one", "learned_sink") or (total >= 1 - 1e-6).all()
    (gradient,) = torch.autograd.grad(weights[..., 0].sum(), scores)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", names("normalizer"))
def test_ties_share_their_weight(name: str) -> None:
    scores = torch.tensor([0.3, 0.3, 0.3, -9.0], dtype=torch.float64).repeat(HEADS, 1, 1)
    for weights in build_part("normalizer", name)(scores)[:, 0]:
        assert weights[0] == weights[1] == weights[2] > weights[3]


@pytest.mark.parametrize("name", names("normalizer"))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    scores = normal(HEADS, 3, 300).to(dtype)
    weights = build_part("normalizer", name)(scores)
    assert weights.dtype == dtype
    assert torch.equal(weights, build_part("normalizer", name)(scores.float()).to(dtype))


@pytest.mark.parametrize("name", names("normalizer"))
def test_replicas_at_once_equal_one_after_the_other(name: str) -> None:
    normalizer, scores = build_part("normalizer", name), normal(3, HEADS, 2, 5)
    torch.testing.assert_close(torch.vmap(normalizer)(scores), torch.stack([normalizer(rows) for rows in scores]))


def test_sparse_weights_are_sparse_and_entmax_lies_between() -> None:
    scores = 2 * normal(50, 12)
    shown = {name: (build_part("normalizer", name)(scores) > 0).sum() for name in ("softmax", "entmax15", "sparsemax")}
    assert shown["softmax"] > 2 * shown["entmax15"] > 2 * shown["sparsemax"]


def test_a_sigmoid_takes_the_bias_that_it_is_told() -> None:
    scores = normal(2, 5)
    torch.testing.assert_close(Sigmoid(bias=-1.5)(scores), torch.sigmoid(scores - 1.5))
    torch.testing.assert_close(Sigmoid()(scores), torch.sigmoid(scores - math.log(5)))


def test_a_learned_sink_begins_as_softmax_off_by_one_and_is_a_key_more() -> None:
    scores, sink = normal(2, HEADS, 3, 5), LearnedSink(HEADS).double()
    torch.testing.assert_close(sink(scores), SoftmaxOffByOne()(scores))
    sink.logits.data = normal(HEADS, seed=1)
    one_more = torch.cat([scores, sink.logits[:, None, None].expand(2, -1, 3, 1)], -1)
    torch.testing.assert_close(sink(scores), torch.softmax(one_more, -1)[..., :-1])


def test_of_the_best_keys_there_are_k_and_those_tied_with_the_last() -> None:
    weights = TopK(2)(torch.tensor([[0.1, 3.0, 2.0, -1.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64))
    expected = [[0, math.e / (1 + math.e), 1 / (1 + math.e), 0], [1 / 3, 1 / 3, 1 / 3, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        TopK(0)


def test_a_learned_sink_has_heads() -> None:
    with pytest.raises(ValueError, match="heads must be at least 1, got 0"):
        LearnedSink(0)
