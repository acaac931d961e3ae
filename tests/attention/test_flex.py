"""FlexAttention on a CPU, where it only infers: against eager, its block masks, and its refusal to train."""

import pytest
import torch
from attention_contract import HEAD_DIM, HEADS, build_part, names, normal
from masks_of_all_kinds import LENGTH, MASKS
from torch import Tensor

from attelbo.attention import KERNELS, Causal, Mask, Mechanism, MultiHeadAttention, Padding, ScaledDot, SlidingWindow
from attelbo.attention.kernels.flex import block_mask

flex, eager = KERNELS["flex"], KERNELS["eager"]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def inputs(queries: int, keys: int, kv_heads: int = HEADS, values: int = HEAD_DIM) -> list[Tensor]:
    query = normal(2, HEADS, queries, HEAD_DIM)
    return [query, normal(2, kv_heads, keys, HEAD_DIM, seed=1), normal(2, kv_heads, keys, values, seed=2)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("queries", "keys", "kv_heads", "values"), [(16, 16, 4, 4), (3, 13, 2, 7)])
def test_every_mask(mask: str, queries: int, keys: int, kv_heads: int, values: int) -> None:
    given, mechanism = inputs(queries, keys, kv_heads, values), Mechanism(ScaledDot(HEAD_DIM))
    expected = eager(*given, mechanism, mask=MASKS[mask])
    torch.testing.assert_close(flex(*given, mechanism, mask=MASKS[mask]), expected)


@pytest.mark.parametrize("mask", ["none", "causal window"])
@pytest.mark.parametrize("position", names("position"))
@pytest.mark.parametrize("cap", [None, 0.7])
def test_every_position_and_a_soft_cap(mask: str, position: str, cap: float | None) -> None:
    mechanism = Mechanism(ScaledDot(HEAD_DIM), position=build_part("position", position, size=(4, 4)), soft_cap=cap)
    if flex.refuses(mechanism, dropout=0.0, mask=None) is not None:
        assert position in ("contextual", "continuous_bias")
        return
    given = inputs(12, 14)
    expected = eager(*given, mechanism, mask=MASKS[mask])
    torch.testing.assert_close(flex(*given, mechanism, mask=MASKS[mask]), expected)


@pytest.mark.parametrize("score", ["cosine", "dot", "general", "scaled_dot"])
def test_every_dot_product(score: str) -> None:
    mechanism, given = Mechanism(build_part("score", score)), inputs(5, 6)
    torch.testing.assert_close(flex(*given, mechanism), eager(*given, mechanism))


@pytest.mark.parametrize("mask", [mask for mask in MASKS.values() if mask is not None], ids=str)
def test_a_block_mask_leaves_out_only_what_is_masked(mask: Mask) -> None:
    blocks = block_mask(mask, LENGTH, LENGTH, 0, torch.device("cpu")).to_dense()  # (B or 1, 1, 1, 1): one block
    assert bool(blocks.any()) == bool(mask.dense(LENGTH, LENGTH, device=None).any())


def test_distant_blocks_are_left_out_and_the_mask_is_kept() -> None:
    cpu = torch.device("cpu")
    found = block_mask(Causal() & SlidingWindow(100), 512, 512, 0, cpu)
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert found.to_dense()[0, 0].tolist() == expected
    assert block_mask(Causal() & SlidingWindow(100), 512, 512, 0, cpu) is found
    padded = Padding(torch.ones(1, 512, dtype=torch.bool))
    assert block_mask(padded, 512, 512, 0, cpu) is not block_mask(padded, 512, 512, 0, cpu)


def test_what_it_cannot_compute_and_that_it_does_not_train_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    MultiHeadAttention(8, 2, kernel="flex")
    for options, why in (
        ({"score": build_part("score", "additive")}, "Additive is no dot product"),
        ({"normalizer": build_part("normalizer", "sigmoid")}, "its normalizer is softmax, not Sigmoid"),
        ({"dropout": 0.1}, "it cannot drop weights"),
    ):
        with pytest.raises(ValueError, match=f"kernel=flex cannot compute this: {why}; auto or eager"):
            MultiHeadAttention(16, 4, kernel="flex", **options)
    with (
        torch.enable_grad(),
        pytest.raises(ValueError, match=r"no backward pass on a CPU, and there is no GPU.*auto or"),
    ):
        MultiHeadAttention(8, 2, kernel="flex")


def test_with_gradients_it_says_so_in_one_line() -> None:
    attention, x = MultiHeadAttention(8, 2, kernel="flex"), torch.randn(2, 5, 8)
    assert "  flex: uncompiled: makes 50 weights" in attention.explain(5, training=False)
    assert attention(x).isfinite().all()
    with torch.enable_grad(), pytest.raises(ValueError, match=r"kernel=flex cannot train here: .* kernel=auto can"):
        attention(x)
