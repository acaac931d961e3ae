"""The table of kernels: each against eager in float64, for every score, normalizer, position and mask there is.

Lengths of chunks and runs are cut down, so that short sequences take every path.
"""

import itertools
from collections.abc import Iterable, Iterator

import pytest
import torch
from attention_contract import HEAD_DIM, HEADS, TRAINABLE, build_part, names, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from masks_of_all_kinds import LENGTH, MASKS
from torch import Tensor, nn

from attelbo.attention import (
    KERNELS,
    Alibi,
    Causal,
    Kernel,
    KernelName,
    Mask,
    Mechanism,
    NoPosition,
    Padding,
    Position,
    ScaledDot,
    SlidingWindow,
)
from attelbo.attention.kernels import chunked, folding

eager = KERNELS["eager"]
OTHERS = [name for name in TRAINABLE if name != "eager"]


@pytest.fixture(scope="module", autouse=True)
def short_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "CHUNK_NUMBERS", 1)
        patch.setattr(chunked, "SHORTEST_CHUNK", 3)
        patch.setattr(folding, "SHORTEST_RUN", 2)
        yield


def inputs(queries: int, keys: int, kv_heads: int = HEADS, values: int = HEAD_DIM, seed: int = 0) -> list[Tensor]:
    query = normal(2, HEADS, queries, HEAD_DIM, seed=seed)
    key = normal(2, kv_heads, keys, HEAD_DIM, seed=seed + 1)
    value = normal(2, kv_heads, keys, values, seed=seed + 2)
    return [query.requires_grad_(), key.requires_grad_(), value.requires_grad_()]


def outcome(kernel: Kernel, given: list[Tensor], mechanism: Mechanism, **options: object) -> list[Tensor]:
    """Output and the gradients by inputs and parameters of a random projection of it."""
    output = kernel(*given, mechanism, **options)
    parameters = [*mechanism.score.parameters(), *mechanism.position.parameters()]
    if isinstance(mechanism.normalizer, nn.Module):
        parameters += mechanism.normalizer.parameters()
    wanted = [*given, *parameters]
    found = torch.autograd.grad((output * normal(*output.shape, seed=9)).sum(), wanted, allow_unused=True)
    return [output, *(torch.zeros_like(t) if g is None else g for g, t in zip(found, wanted, strict=True))]


def agree(name: KernelName, given: list[Tensor], mechanism: Mechanism, mask: Mask | None, **options: object) -> None:
    ours = outcome(KERNELS[name], given, mechanism, mask=mask, **options)
    expected = outcome(eager, given, mechanism, mask=mask, **options)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def able(kernels: Iterable[KernelName], **parts: list[str]) -> list[tuple[str, ...]]:
    """(kernel, name of a part of each group, ...) wherever the kernel can compute what these parts make."""
    found = []
    for name, *chosen in itertools.product(kernels, *parts.values()):
        made = {group: build_part(group, part) for group, part in zip(parts, chosen, strict=True)}
        mechanism = Mechanism(made.get("score", ScaledDot(HEAD_DIM)), made["normalizer"])
        if KERNELS[name].refuses(mechanism, dropout=0.0, mask=None) is None:
            found.append((name, *chosen))
    return found


sizes = st.integers(1, LENGTH)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("mask", MASKS)
@settings(max_examples=6, deadline=None)
@given(queries=sizes, keys=sizes, seed=st.integers(0, 99), kv_heads=st.sampled_from([1, 2, 4]), data=st.data())
def test_every_mask(
    name: KernelName, mask: str, queries: int, keys: int, seed: int, kv_heads: int, data: st.DataObject
) -> None:
    offset = data.draw(st.none() if queries <= keys else st.just(0) | st.integers(0, LENGTH - queries))
    agree(name, inputs(queries, keys, kv_heads, seed=seed), Mechanism(ScaledDot(HEAD_DIM)), MASKS[mask], offset=offset)


SOME_MASKS = ["none", "causal", "causal window", "window with padding", "causal document"]


@pytest.mark.parametrize("mask", ["causal", "window with padding"])
@pytest.mark.parametrize(
    ("name", "score", "normalizer"), able(OTHERS, score=names("score"), normalizer=names("normalizer"))
)
def test_every_score_and_normalizer(name: KernelName, mask: str, score: str, normalizer: str) -> None:
    mechanism = Mechanism(build_part("score", score), build_part("normalizer", normalizer))
    agree(name, inputs(11, 14, 2), mechanism, MASKS[mask])


@pytest.mark.parametrize("name", OTHERS)
def test_masks_are_asked_of_no_place_behind_the_last(name: KernelName) -> None:
    agree(name, inputs(LENGTH - 1, LENGTH), Mechanism(ScaledDot(HEAD_DIM)), MASKS["window in documents"])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("mask", SOME_MASKS)
@pytest.mark.parametrize("position", names("position"))
def test_every_position(name: KernelName, mask: str, position: str) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), position=build_part("position", position, size=(4, 4)))
    if KERNELS[name].refuses(mechanism, dropout=0.0, mask=None) is None:
        agree(name, inputs(13, 15), mechanism, MASKS[mask])
    else:
        assert (name, position) == ("sdpa", "contextual")


@pytest.mark.parametrize(("name", "normalizer"), able(OTHERS, normalizer=names("normalizer")))
@pytest.mark.parametrize("mask", SOME_MASKS)
def test_a_bias_with_every_normalizer(name: KernelName, normalizer: str, mask: str) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), build_part("normalizer", normalizer), Alibi(HEADS).double())
    agree(name, inputs(13, 13, 2), mechanism, MASKS[mask])


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "sdpa"])
@pytest.mark.parametrize("mask", SOME_MASKS)
def test_a_soft_cap(name: KernelName, mask: str) -> None:
    agree(name, inputs(13, 15), Mechanism(ScaledDot(HEAD_DIM), soft_cap=0.7), MASKS[mask])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("mask", ["none", "causal", "causal window"])
@pytest.mark.parametrize("values", [1, 3, 7])
def test_values_of_another_size(name: KernelName, mask: str, values: int) -> None:
    agree(name, inputs(12, 12, values=values), Mechanism(ScaledDot(HEAD_DIM)), MASKS[mask])


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("mask", ["none", "causal", "causal window"])
def test_any_layout(name: KernelName, mask: str) -> None:
    given = inputs(12, 12)
    strided = [t.detach().transpose(-1, -2).contiguous().transpose(-1, -2) for t in given]
    mechanism = Mechanism(ScaledDot(HEAD_DIM))
    torch.testing.assert_close(
        KERNELS[name](*strided, mechanism, mask=MASKS[mask]), eager(*given, mechanism, mask=MASKS[mask])
    )


@pytest.mark.parametrize(("name", "normalizer"), able(TRAINABLE, normalizer=names("normalizer")))
@pytest.mark.parametrize("position", [NoPosition(), Alibi(HEADS)], ids=["no bias", "bias"])
def test_a_query_with_nothing_to_attend_to_gets_zeros_and_moves_nothing(
    name: KernelName, normalizer: str, position: Position
) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), build_part("normalizer", normalizer), position)
    valid = torch.tensor([[False, False, True, False, True, True, True], [False] * 7])
    for mask in (Causal() & Padding(valid), Causal() & SlidingWindow(2) & Padding(valid)):
        output, *gradients = outcome(KERNELS[name], inputs(7, 7), mechanism, mask=mask)
        seen = mask.dense(7, 7, device=None)  # (2, 1, 7, 7)
        assert (output.masked_select(~seen.any(-1).unsqueeze(-1)) == 0).all()
        assert (gradients[0].masked_select(~seen.any(-1).unsqueeze(-1)) == 0).all()
        for gradient in gradients[1:3]:
            assert (gradient.masked_select(~seen.any(-2).unsqueeze(-1)) == 0).all()
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("name", "normalizer"), able(TRAINABLE, normalizer=names("normalizer")))
@pytest.mark.parametrize(
    "mask", [None, Causal(), Padding(torch.ones(2, 0, dtype=torch.bool))], ids=["none", "causal", "padding"]
)
def test_an_empty_memory_gives_zeros(name: KernelName, normalizer: str, mask: Mask | None) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), build_part("normalizer", normalizer), Alibi(HEADS))
    assert (KERNELS[name](*inputs(3, 0, values=5), mechanism, mask=mask) == torch.zeros(2, HEADS, 3, 5)).all()


@pytest.mark.parametrize(("name", "normalizer"), able(TRAINABLE, normalizer=names("normalizer")))
@pytest.mark.parametrize("poison", [1e9, float("nan")])
@pytest.mark.parametrize("mask", ["padding", "causal document", "window with padding"])
def test_what_stands_in_padding_shows_nowhere(name: KernelName, poison: float, mask: str, normalizer: str) -> None:
    mechanism, allowed = Mechanism(ScaledDot(HEAD_DIM), build_part("normalizer", normalizer)), MASKS[mask]
    assert allowed is not None
    query, key, value = inputs(LENGTH, LENGTH)
    there = allowed.dense(LENGTH, LENGTH, device=None).any(-2)[:, :, :, None]
    assert not there.all()
    poisoned = [query, *(t.detach().masked_fill(~there, poison).requires_grad_() for t in (key, value))]
    for one, other in zip(
        outcome(KERNELS[name], poisoned, mechanism, mask=allowed),
        outcome(KERNELS[name], [query, key, value], mechanism, mask=allowed),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", TRAINABLE)
def test_large_numbers_in_the_future_show_nowhere(name: KernelName) -> None:
    query, key, value = inputs(8, 8)
    later = torch.cat([torch.zeros(5), torch.full((3,), 1e9)])[:, None]
    for mask in (Causal(), Causal() & SlidingWindow(3)):
        expected, *_ = outcome(KERNELS[name], [query, key, value], Mechanism(ScaledDot(HEAD_DIM)), mask=mask)
        poisoned = KERNELS[name](query, key + later, value + later, Mechanism(ScaledDot(HEAD_DIM)), mask=mask)
        torch.testing.assert_close(poisoned[:, :, :5], expected[:, :, :5])


@pytest.mark.parametrize(("name", "normalizer"), able(["sdpa", "chunked"], normalizer=["softmax", "sigmoid"]))
@pytest.mark.parametrize("mask", ["none", "causal", "causal window", "causal document"])
def test_gradients_by_finite_differences(name: KernelName, mask: str, normalizer: str) -> None:
    mechanism = Mechanism(ScaledDot(3), build_part("normalizer", normalizer))
    given = [normal(2, 1, 7, 3, seed=seed).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(
        lambda *qkv: KERNELS[name](*qkv, mechanism, mask=MASKS[mask]), given, fast_mode=True
    )


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("mask", ["none", "causal", "causal window"])
def test_dropout_drops_and_keeps_the_mean(name: KernelName, mask: str) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM))
    torch.manual_seed(0)
    given = [t.detach()[:1].expand(4000, -1, -1, -1) for t in inputs(8, 8)]
    dropped = KERNELS[name](*given, mechanism, mask=MASKS[mask], dropout=0.3)
    assert dropped[:, :, 1:].std(0).min() > 0.02
    exact = eager(*(t[:1] for t in given), mechanism, mask=MASKS[mask])[0]
    error = dropped.std(0) / 4000**0.5
    assert ((dropped.mean(0) - exact).abs() < 5.5 * error + 1e-12).all()


@pytest.mark.parametrize("name", TRAINABLE)
def test_what_is_dropped_in_a_backward_pass_is_what_was_dropped_in_the_forward_pass(name: KernelName) -> None:
    torch.manual_seed(0)
    query, key, value = inputs(8, 8)
    output = KERNELS[name](query, key, value, Mechanism(ScaledDot(HEAD_DIM)), mask=Causal(), dropout=0.4)
    (gradient,) = torch.autograd.grad(output.sum(), value)
    # The output is linear in the values: their gradient, times them, is its sum.
    torch.testing.assert_close((gradient * value).sum(), output.sum())


@pytest.mark.parametrize(("name", "normalizer"), able(OTHERS, normalizer=names("normalizer")))
@pytest.mark.parametrize("mask", ["none", "causal", "causal window"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_no_more_than_twice_as_much_as_eager(
    name: KernelName, mask: str, dtype: torch.dtype, normalizer: str
) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), build_part("normalizer", normalizer))
    given = [t.detach().to(dtype) for t in inputs(LENGTH, LENGTH)]
    exact = eager(*(t.double() for t in given), mechanism, mask=MASKS[mask])
    error, budget = (
        (kernel(*given, mechanism, mask=MASKS[mask]).double() - exact).square().mean().sqrt()
        for kernel in (KERNELS[name], eager)
    )
    assert budget > 0
    assert error <= 2 * budget
