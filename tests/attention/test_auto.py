"""Which kernel is chosen, that it is the one that computes, and what is said about it."""

import warnings
from typing import Any

import pytest
import torch
from attention_contract import TRAINABLE
from torch import Tensor

from attelbo.attention import (
    KERNELS,
    Additive,
    Alibi,
    Call,
    Causal,
    KernelName,
    Location,
    Mask,
    Mechanism,
    MultiHeadAttention,
    Normalizer,
    Padding,
    Prefix,
    RelativeBias,
    ScaledDot,
    Sigmoid,
    SlidingWindow,
    Softmax,
    SoftmaxOffByOne,
)
from attelbo.attention.kernels import chunked
from attelbo.attention.kernels.auto import choose
from attelbo.attention.kernels.folding import folding_of

DOT = Mechanism(ScaledDot(8))
WINDOW = Causal() & SlidingWindow(128)


def call(n: int, *, keys: int | None = None, dropout: float = 0.0, training: bool = True, device: str = "cpu") -> Call:
    keys = n if keys is None else keys
    return Call(1, 8, n, keys, keys - n, dropout, training, device)


@pytest.mark.parametrize(
    ("expected", "mechanism", "mask", "what"),
    [
        ("sdpa", DOT, None, call(128)),
        ("sdpa", DOT, Causal(), call(4096)),
        ("sdpa", Mechanism(ScaledDot(8), SoftmaxOffByOne()), Causal(), call(512)),
        ("sdpa", Mechanism(ScaledDot(8), Softmax(), Alibi(8)), Causal(), call(512)),
        ("chunked", Mechanism(ScaledDot(8), Softmax(), Alibi(8)), Causal(), call(4096)),
        ("sdpa", Mechanism(ScaledDot(8), Softmax(), RelativeBias(8)), None, call(1024, training=False)),
        ("sdpa", DOT, None, call(4096, dropout=0.1, device="cuda")),
        ("sdpa", DOT, WINDOW, call(128)),
        ("chunked", DOT, WINDOW, call(512)),
        ("chunked", DOT, WINDOW, call(1, keys=512)),
        ("sdpa", DOT, WINDOW, call(1, keys=200)),  # of which it shows more than half
        ("sdpa", DOT, Causal() | Prefix(3), call(2048)),
        ("chunked", DOT, Causal() | Prefix(3), call(8192)),
        ("chunked", DOT, WINDOW & Padding(torch.ones(1, 4096, dtype=torch.bool)), call(4096)),
        ("sdpa", DOT, Causal(), call(128, dropout=0.1)),
        ("chunked", DOT, None, call(4096, dropout=0.1)),
        ("chunked", Mechanism(ScaledDot(8), Softmax(), RelativeBias(8)), Causal(), call(1024)),
        ("eager", Mechanism(Additive(8, 8)), None, call(128)),
        ("chunked", Mechanism(Additive(8, 64)), None, call(256)),  # 64 numbers for each weight
        ("chunked", Mechanism(ScaledDot(8), Sigmoid()), None, call(4096)),
        ("eager", Mechanism(Location(8, 8, 4096)), WINDOW, call(4096)),
    ],
)
def test_the_choice(expected: KernelName, mechanism: Mechanism, mask: Mask | None, what: Call) -> None:
    kernel, reason = choose(mechanism, mask, what)
    assert (kernel.name, kernel.refuses(mechanism, dropout=what.dropout, mask=mask)) == (expected, None)
    assert reason


def test_a_step_of_decoding_is_not_folded() -> None:
    assert folding_of(WINDOW, 1, 512, 511) is None
    assert folding_of(WINDOW, 512, 512, 0) is not None


@pytest.mark.parametrize(
    ("mask", "normalizer"),
    [(None, Softmax()), (Causal(), Sigmoid()), (Causal() & SlidingWindow(20), Softmax())],
    ids=["fused", "chunks", "window"],
)
def test_it_is_traced_as_one_graph_and_stacked_over_replicas(
    monkeypatch: pytest.MonkeyPatch, mask: Mask | None, normalizer: Normalizer
) -> None:
    monkeypatch.setattr(chunked, "CHUNK_NUMBERS", 1)
    mechanism = Mechanism(ScaledDot(4), normalizer)
    given = [torch.randn(3, 1, 2, 90, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]

    def attend(*qkv: Tensor) -> Tensor:
        return KERNELS["auto"](*qkv, mechanism, mask=mask)

    each = torch.stack([attend(*qkv) for qkv in zip(*given, strict=True)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # training stacks by rules of its own
        stacked = torch.vmap(attend)(*given)
    own = [t.detach()[0].requires_grad_() for t in given]
    traced = torch.compile(attend, backend="aot_eager", fullgraph=True)(*own)
    torch.testing.assert_close(stacked, each)
    torch.testing.assert_close(traced, each[0])
    expected = torch.autograd.grad(each.square().sum(), given)
    torch.testing.assert_close(torch.autograd.grad(stacked.square().sum(), given), expected)
    torch.testing.assert_close(torch.autograd.grad(traced.square().sum(), own), tuple(t[0] for t in expected))


@pytest.mark.parametrize("length", [32, 512])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_what_is_chosen_computes(length: int, dropout: float) -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, 2, length, 8).requires_grad_() for _ in range(3)]
    mask = Causal() & SlidingWindow(16)
    kernel, _ = choose(DOT, mask, Call.of(*given, dropout=dropout))
    outputs = []
    for one in (KERNELS["auto"], kernel):
        torch.manual_seed(1)
        outputs.append(one(*given, DOT, mask=mask, dropout=dropout))
    assert torch.equal(*outputs)


def test_a_call_knows_whether_gradients_are_wanted() -> None:
    given = [torch.randn(2, 3, n, 4) for n in (5, 7, 7)]
    assert Call.of(*given, dropout=0.1) == Call(2, 3, 5, 7, 2, 0.1, False, "cpu")
    given[1].requires_grad_()
    assert Call.of(*given, dropout=0.0).training
    with torch.no_grad():
        assert not Call.of(*given, dropout=0.0).training


def test_explained_before_and_after_a_call() -> None:
    attention = MultiHeadAttention(32, 4, mask=WINDOW, dropout=0.1)
    with pytest.raises(ValueError, match="there was no call yet"):
        attention.explain()
    told = attention.explain(4096, batch_size=2)
    assert told.splitlines() == [
        "chunked: the mask shows 192 of 4096 keys to queries that are neighbours",
        "for 2 x 4 heads, 4096 queries, 4096 keys on cpu, with gradients, dropout 0.1",
        "  eager: keeps 134,217,728 weights",
        "  sdpa: not fused on a CPU, since weights are dropped: keeps 134,217,728 weights",
        "  chunked: runs of 64 queries with 192 keys in sight",
        "  flex: cannot: it cannot drop weights",
    ]
    attention.eval()
    attention(torch.randn(3, 5, 32))
    told = attention.explain()
    assert told.startswith(
        "sdpa: PyTorch's fused kernel can compute it and keeps no weights\nfor 3 x 4 heads, 5 queries"
    )
    assert "dropout 0\n" in told
    assert "  sdpa: fused, with a dense mask\n" not in told  # five tokens are all within the window
    causal = MultiHeadAttention(32, 4, mask=Causal())
    assert "  sdpa: fused\n" in causal.explain(64)
    assert "  sdpa: fused, with a dense mask\n" in MultiHeadAttention(32, 4, mask=WINDOW).explain(300)


def test_explained_where_a_kernel_is_asked_for_and_others_refuse() -> None:
    attention = MultiHeadAttention(32, 4, score=Location(4, 8, 64), kernel="eager")
    told = attention.explain(64, training=False)
    assert told.startswith("eager: as asked for\nfor 1 x 4 heads, 64 queries, 64 keys on cpu, without gradients")
    assert "  sdpa: cannot: Location is no dot product\n" in told
    assert "  chunked: cannot: location scores count keys" in told


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("options", [{}, {"mask": Causal()}, {"mask": Causal() & SlidingWindow(40)}, {"soft_cap": 5.0}])
def test_real_lengths_agree_with_eager(kernel: KernelName, options: dict[str, Any]) -> None:
    """Here, nothing is cut down: 600 tokens are several chunks."""
    mechanism = Mechanism(ScaledDot(8), soft_cap=options.get("soft_cap"))
    mask = options.get("mask")
    if KERNELS[kernel].refuses(mechanism, dropout=0.0, mask=mask) is not None:
        return
    torch.manual_seed(0)
    given = [torch.randn(2, 4, 600, 8, dtype=torch.float64).requires_grad_() for _ in range(3)]

    def outcome(name: KernelName) -> list[Tensor]:
        output = KERNELS[name](*given, mechanism, mask=mask)
        return [output, *torch.autograd.grad(output.square().sum(), given)]

    for one, other in zip(outcome(kernel), outcome("eager"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
