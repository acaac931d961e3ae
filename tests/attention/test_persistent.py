"""Learned keys and values beside those of the tokens, against plain attention to all of them."""

import pytest
import torch
from attention_contract import TRAINABLE, normal, randomize
from masks_of_all_kinds import LENGTH, MASKS
from torch import nn

from attelbo.attention import (
    Alibi,
    Causal,
    ContinuousBias,
    KernelName,
    Location,
    Padding,
    PersistentMemoryAttention,
    Position,
    RelativeBias,
    Rotary,
    record_attention,
)

DIM, HEADS, HEAD, MEMORIES = 16, 4, 4, 3
POSITIONS = {
    "none": lambda: None,
    "rotary": lambda: Rotary(HEAD, LENGTH),
    "alibi": lambda: Alibi(HEADS),
    "relative_bias": lambda: RelativeBias(HEADS, causal=True, buckets=4, max_distance=5),
    "continuous_bias": lambda: ContinuousBias(HEADS, 8),
}


def layer(position: Position | None = None, **options) -> PersistentMemoryAttention:
    made = PersistentMemoryAttention(DIM, HEADS, memories=MEMORIES, position=position, **options).double()
    randomize(made)
    return made


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mask", ["none", "causal", "causal window", "padding", "causal document"])
def test_it_is_attention_to_memories_and_tokens(mask: str, position: str, kernel: KernelName) -> None:
    ours, x, own = layer(POSITIONS[position](), kv_heads=2, kernel=kernel), normal(2, LENGTH, DIM), MASKS[mask]
    q, k, v = ours.project(x)
    k, v = (torch.cat([m.expand(2, -1, -1, -1), t], 2) for m, t in ((ours.memory_keys, k), (ours.memory_values, v)))
    k, v = (t.repeat_interleave(2, 1) for t in (k, v))
    scores = q @ k.mT / HEAD**0.5
    if ours.position.has_bias:
        at = torch.arange(LENGTH)
        scores[..., MEMORIES:] += ours.position.bias(torch.arange(HEADS)[:, None, None], at[:, None], at)
    if own is not None:
        masked = ~own.dense(LENGTH, LENGTH, device=None).expand(2, HEADS, -1, -1)
        scores[..., MEMORIES:] = scores[..., MEMORIES:].masked_fill(masked, -torch.inf)
    weights = scores.softmax(-1)
    expected = ours.output((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours(x, mask=own), expected)
    torch.testing.assert_close(ours.weights(x, mask=own), weights[..., MEMORIES:])


@pytest.mark.parametrize("kernel", TRAINABLE)
def test_where_there_is_no_token_there_are_memories(kernel: KernelName) -> None:
    ours, x = layer(kernel=kernel), normal(1, 4, DIM)
    poisoned = torch.full((1, 5, DIM), torch.nan, dtype=torch.float64)
    nobody = Padding(torch.zeros(1, 5, dtype=torch.bool))
    torch.testing.assert_close(ours(x, poisoned, mask=nobody), ours(x, normal(1, 0, DIM)))


def test_maps_are_of_the_tokens() -> None:
    ours, x = layer(Alibi(HEADS), mask=Causal()), normal(2, 5, DIM)
    with record_attention(nn.ModuleDict({"layer": ours})) as maps:
        ours(x)
    assert maps["layer"].shape == (2, HEADS, 5, 5)
    assert (maps["layer"].sum(-1) < 1).all()


def test_it_explains_itself_with_its_memories() -> None:
    ours, x = layer(mask=Causal(), kernel="eager"), normal(1, 5, DIM)
    expected = ours.explain(5, training=True)
    ours(x)
    assert f"{HEADS * 5 * (5 + MEMORIES)} weights" in expected
    assert ours.explain() == expected


def test_memories_begin_as_large_as_said() -> None:
    made = PersistentMemoryAttention(128, 2, memories=64)
    for drawn in (made.memory_keys, made.memory_values):
        assert drawn.shape == (2, 64, 64)
        assert drawn.std().item() == pytest.approx(64**-0.5, rel=0.05)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="memories must be at least 1, got 0"):
        PersistentMemoryAttention(DIM, HEADS, memories=0)
    with pytest.raises(ValueError, match="location scores compare places"):
        PersistentMemoryAttention(DIM, HEADS, memories=1, score=Location(HEADS, HEAD, LENGTH))
