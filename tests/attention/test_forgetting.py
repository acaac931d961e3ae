"""Forgetting attention against its definition by loops, against ALiBi, and what padding and documents forget."""

import math

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import (
    Additive,
    Alibi,
    Causal,
    Cosine,
    Distance,
    Document,
    ForgettingAttention,
    General,
    MultiHeadAttention,
    NoPosition,
    Padding,
    SoftmaxOffByOne,
)
from attelbo.errors import ConfigError
from attelbo.experiments import untrained
from attelbo.networks import AttentionParts, Transformer

DIM, HEADS, LENGTH = 16, 4, 9


def layer(**options) -> ForgettingAttention:
    torch.manual_seed(0)
    made = ForgettingAttention(DIM, HEADS, **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def tokens(n: int = LENGTH, rows: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(rows, n, DIM, dtype=torch.float64)


def with_gates(ours: ForgettingAttention, bias: Tensor) -> None:
    """Give all tokens the same gates, sigmoid of ``bias`` (N,)."""
    assert ours.forget is not None
    nn.init.zeros_(ours.forget.weight)
    ours.forget.bias.data = bias.double()


def plain(ours: ForgettingAttention, **options) -> MultiHeadAttention:
    """Ordinary attention with the same projections."""
    theirs = MultiHeadAttention(DIM, HEADS, kv_heads=ours.kv_heads, **options)
    theirs.qkv, theirs.output = ours.qkv, ours.output
    return theirs.double()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_what_is_between_is_forgotten(kv_heads: int) -> None:
    ours, x = layer(kv_heads=kv_heads), tokens()
    assert ours.forget is not None
    q, k, v = ours.qkv(x).split(ours.widths, -1)
    gates = torch.sigmoid(x @ ours.forget.weight.T + ours.forget.bias)
    d, outputs = DIM // HEADS, torch.zeros(2, LENGTH, DIM, dtype=torch.float64)
    for b in range(2):
        for n in range(HEADS):
            shared = n * kv_heads // HEADS  # neighbours share
            of_head, of_key = slice(n * d, n * d + d), slice(shared * d, shared * d + d)
            for i in range(LENGTH):
                scores = []
                for j in range(i + 1):
                    kept = math.prod(gates[b, t, n].item() for t in range(j + 1, i + 1))
                    scores.append((q[b, i, of_head] @ k[b, j, of_key]).item() / d**0.5 + math.log(kept))
                weights = torch.softmax(torch.tensor(scores, dtype=torch.float64), 0)
                outputs[b, i, of_head] = weights @ v[b, : i + 1, of_key]
    torch.testing.assert_close(ours(x), ours.output(outputs))


@pytest.mark.parametrize("score", [None, Cosine, lambda: General(HEADS, DIM // HEADS), lambda: Distance(DIM // HEADS)])
@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"kernel": "eager"}, {"kernel": "sdpa"}])
def test_gates_that_are_open_make_it_multi_head_attention(options, score) -> None:
    made = None if score is None else score().double()
    ours, x = layer(score=made, **options), tokens()
    theirs = plain(ours, score=made)
    assert not torch.allclose(ours(x), theirs(x, mask=Causal()))
    with_gates(ours, torch.full((HEADS,), 1e4))
    torch.testing.assert_close(ours(x), theirs(x, mask=Causal()))
    assert not torch.allclose(ours(x), theirs(x))  # it looks back by itself


@pytest.mark.parametrize("normalizer", [None, SoftmaxOffByOne()])
@pytest.mark.parametrize("kernel", ["eager", "sdpa", "chunked"])
def test_gates_that_are_equal_make_it_alibi(kernel, normalizer) -> None:
    ours, x = layer(kernel=kernel, normalizer=normalizer), tokens()
    theirs = plain(ours, position=Alibi(HEADS).double(), normalizer=normalizer)
    slopes = torch.tensor([0.25, 0.0625, 0.015625, 0.00390625], dtype=torch.float64)  # 2^-2 ... 2^-8
    with_gates(ours, -torch.log(torch.expm1(slopes)))  # sigmoid of it is exp(-slope)
    torch.testing.assert_close(ours(x), theirs(x, mask=Causal()))
    torch.testing.assert_close(ours.weights(x), theirs.weights(x, mask=Causal()))


def test_a_kernel_that_only_infers() -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            layer(kernel="flex", kv_heads=2)(tokens()), layer(kernel="eager", kv_heads=2)(tokens())
        )


@pytest.mark.parametrize("poison", [1e9, float("nan")])
def test_padding_forgets_nothing(poison: float) -> None:
    ours, x = layer(), tokens(rows=1)
    there = torch.tensor([True, False, True, True, False, False, True, True, False])
    poisoned = torch.where(there[None, :, None], x, poison)
    output = ours(poisoned, mask=Padding(there[None]))
    torch.testing.assert_close(output[:, there], ours(x[:, there]))


def test_documents_forget_nothing_of_each_other() -> None:
    ours, x = layer(), tokens()
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1, -1, -1]])
    output = ours(x, mask=Document(ids))
    for row in range(2):
        for document in range(int(ids[row].max()) + 1):
            own = ids[row] == document
            torch.testing.assert_close(output[row : row + 1, own], ours(x[row : row + 1, own]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_long_sums_are_not_rounded(dtype: torch.dtype, kernel) -> None:
    """Where thousands of nats are forgotten, it errs hardly more than attention that forgets nothing."""
    ours, x = layer(kernel=kernel), tokens(600, rows=1)
    with_gates(ours, torch.tensor([-1.0, -1.0, -9.0, 2.0]))
    errors = []
    for each in (ours, plain(ours)):
        with torch.no_grad():
            expected = each(x, mask=Causal())
            errors.append((each.to(dtype)(x.to(dtype), mask=Causal()).double() - expected).norm() / expected.norm())
            each.double()
    assert errors[0] < max(3 * errors[1], 1e-4)  # of 5,400 nats float32 keeps 0.0005


def test_a_memory_is_not_forgotten() -> None:
    x, memory = tokens(3), tokens(5)
    for ours in (layer(causal=False), layer()):
        torch.testing.assert_close(ours(x, memory), plain(ours)(x, memory))
    assert layer(causal=False).forget is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer(score=Additive(HEADS, DIM // HEADS)), "its gates in a dot product, which Additive is not"),
        (lambda: layer(causal=False, position=NoPosition()), "forgetting attention looks back only"),
        (lambda: layer(causal=False)(tokens()), "not causal is for a memory: it has no gates"),
        (lambda: layer(kernel="flex"), "kernel=flex cannot compute this: .*no backward pass on a CPU"),
    ],
)
def test_what_it_cannot_do_is_one_line(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


PARTS = AttentionParts(
    attention={"_target_": "attelbo.attention.ForgettingAttention", "heads": 2},
    score={"_target_": "attelbo.attention.ScaledDot"},
    normalizer={"_target_": "attelbo.attention.Softmax"},
    position={"_target_": "attelbo.attention.NoPosition"},
)


def test_a_decoder_forgets_its_own_tokens_only() -> None:
    decoder = Transformer(8, PARTS, NoPosition(), causal=True, cross=True, layers=1)
    (block,) = decoder._blocks()
    assert isinstance(block.attention, ForgettingAttention)
    assert isinstance(block.cross, ForgettingAttention)
    assert block.attention.forget is not None
    assert block.cross.forget is None
    decoder(torch.randn(2, 4, 8), torch.randn(2, 3, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_what_sees_both_sides_is_refused() -> None:
    words = ("model=vit", "data=digits", "model/attention=forgetting", "model.dim=8", "model.attention.heads=2")
    with pytest.raises(ConfigError, match=r"model.attention: forgetting attention looks back only"):
        untrained(*words)
