"""Contextual positions against a loop over queries and keys, in each layer, and what cannot have them."""

import itertools
import math

import pytest
import torch
from attention_contract import normal, randomize
from torch import Tensor

from attelbo.attention import (
    KERNELS,
    AttentionLayer,
    Causal,
    Contextual,
    DifferentialAttention,
    Document,
    ForgettingAttention,
    GatedAttention,
    KernelName,
    LatentAttention,
    Mask,
    Mechanism,
    MultiHeadAttention,
    Padding,
    PersistentMemoryAttention,
    ResidualScoreAttention,
    ScaledDot,
    SlidingWindow,
    TalkingHeadsAttention,
)

DIM, HEADS, HEAD, LENGTH, PLACES = 16, 2, 8, 9, 4
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, -1, -1]])
MASKS: dict[str, Mask] = {
    "causal": Causal(),
    "window": Causal() & SlidingWindow(3),
    "documents": Causal() & Document(IDS),
    "padding": Causal() & Padding(IDS == 1),
}


def position(head_dim: int = HEAD, places: int = PLACES) -> Contextual:
    made = Contextual(head_dim, places=places).double()
    randomize(made)
    return made


def by_hand(q: list[Tensor], k: list[Tensor], table: Tensor, seen: list[list[bool]]) -> list[list[float]]:
    """The scores of one head, as eqs. 3-5 of the paper have them."""
    n, vectors = len(q), table.T
    scores = [[float(q[t] @ k[s]) / math.sqrt(len(q[t])) for s in range(n)] for t in range(n)]
    found = [[-math.inf] * n for _ in range(n)]
    for t, s in itertools.product(range(n), range(n)):
        if not seen[t][s]:
            continue
        open_gates = sum(1 / (1 + math.exp(-scores[t][u])) for u in range(s, t + 1) if seen[t][u])
        at = min(open_gates, len(vectors) - 1)
        below, above = vectors[math.floor(at)], vectors[math.ceil(at)]
        share = at - math.floor(at)
        found[t][s] = scores[t][s] + float(q[t] @ ((1 - share) * below + share * above))
    return found


@pytest.mark.parametrize("mask", MASKS)
def test_it_is_the_sum_of_gates_from_the_key_to_the_query(mask: str) -> None:
    where, seen = position(), MASKS[mask].dense(LENGTH, LENGTH, device=None)
    q, k, v = (normal(2, HEADS, LENGTH, HEAD, seed=seed) for seed in range(3))
    found = KERNELS["eager"](q, k, v, Mechanism(ScaledDot(HEAD), position=where), mask=MASKS[mask])
    clamped = 0
    for row, head in itertools.product(range(2), range(HEADS)):
        allowed = seen.expand(2, 1, -1, -1)[row, 0]
        of_head = (list(q[row, head]), list(k[row, head]), where.table.detach())
        scores = torch.tensor(by_hand(*of_head, allowed.tolist()), dtype=torch.float64)
        weights = scores.softmax(-1).nan_to_num(0.0)
        torch.testing.assert_close(found[row, head], weights @ v[row, head], rtol=1e-12, atol=1e-12)
        gates = (q[row, head] @ k[row, head].mT / math.sqrt(HEAD)).sigmoid() * allowed
        clamped += int((gates.sum(-1) > PLACES - 1).sum())
    assert clamped > 0 or mask in ("window", "padding")


def test_gates_that_are_all_open_count_the_tokens() -> None:
    """The score of every pair is 100, and a query asks for the vector of a place: for the second key before it."""
    where = Contextual(LENGTH, places=LENGTH).double()
    where.table.data = torch.eye(LENGTH, dtype=torch.float64)
    q = 100 * torch.nn.functional.one_hot(torch.tensor([3] * LENGTH), LENGTH).double().expand(1, 1, -1, -1)
    k = math.sqrt(LENGTH) * torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.float64)
    v = torch.eye(LENGTH, dtype=torch.float64).expand(1, 1, -1, -1)
    found = KERNELS["eager"](q, k, v, Mechanism(ScaledDot(LENGTH), position=where), mask=Causal())
    expected = torch.eye(LENGTH, dtype=torch.float64).roll(-2, -1)[2:]  # the third open gate is two tokens back
    torch.testing.assert_close(found[0, 0, 2:], expected)


@pytest.mark.parametrize("kernel", ["eager", "chunked"])
def test_gradients_by_finite_differences(kernel: KernelName) -> None:
    where = position(3)
    given = [normal(1, 1, 6, 3, seed=seed).requires_grad_() for seed in range(3)]

    def output(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        other = Contextual(3, places=PLACES)
        del other.table
        other.table = table  # pyright: ignore[reportAttributeAccessIssue]
        return KERNELS[kernel](q, k, v, Mechanism(ScaledDot(3), position=other), mask=Causal())

    assert torch.autograd.gradcheck(output, (*given, where.table), fast_mode=True)


def test_a_document_counts_for_itself() -> None:
    ours = MultiHeadAttention(DIM, HEADS, position=position()).double()
    x = normal(1, LENGTH, DIM)
    together = ours(x, mask=Causal() & Document(IDS[:1]))
    apart = [ours(part, mask=Causal()) for part in x.split((3, 6), 1)]
    torch.testing.assert_close(together, torch.cat(apart, 1))


LAYERS = {
    "differential": (DifferentialAttention, HEAD // 2),
    "forgetting": (ForgettingAttention, HEAD),
    "gated": (GatedAttention, HEAD),
    "residual scores": (ResidualScoreAttention, HEAD),
    "talking heads": (TalkingHeadsAttention, HEAD),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kernel", ["auto", "chunked"])
def test_other_layers_decode_as_they_read_and_every_kernel_agrees(name: str, kernel: KernelName) -> None:
    kind, head_dim = LAYERS[name]
    layers = [kind(DIM, HEADS, position=position(head_dim), kernel=each).double() for each in (kernel, "eager")]
    for each in layers:
        randomize(each)
    ours, reference = layers
    assert isinstance(ours, AttentionLayer)
    x, cache = normal(2, LENGTH, DIM), ours.cache(LENGTH)
    expected = reference(x, mask=Causal())
    torch.testing.assert_close(ours(x, mask=Causal()), expected)
    steps = [ours(token, mask=Causal(), cache=cache) for token in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contextual(4, places=1), "places must be at least 2, got 1"),
        (lambda: Contextual(4, causal=False), "Contextual: .* causal attention only; Rotary"),
        (
            lambda: MultiHeadAttention(DIM, HEADS, position=Contextual(HEAD), kernel="sdpa"),
            "kernel=sdpa cannot compute this: it shows no scores, which Contextual reads; auto or eager or chunked can",
        ),
        (
            lambda: MultiHeadAttention(DIM, HEADS, position=Contextual(HEAD), kernel="flex"),
            "kernel=flex cannot compute this: .* Contextual reads .*; auto or eager or chunked can",
        ),
        (
            lambda: LatentAttention(DIM, HEADS, latent_dim=4, position=Contextual(HEAD // 2)),
            "^position: Contextual counts tokens by .* LatentAttention changes; MultiHeadAttention does not",
        ),
        (
            lambda: PersistentMemoryAttention(DIM, HEADS, memories=2, position=Contextual(HEAD)),
            "^position: Contextual counts tokens by .* PersistentMemoryAttention changes",
        ),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
