"""Multi-head attention against ``torch.nn.MultiheadAttention`` on shared weights."""

import pytest
import torch
from attention_contract import TRAINABLE
from torch import Tensor, nn

from attelbo.attention import Causal, KernelName, KeyValueCache, Mechanism, MultiHeadAttention, Padding


def twins(dim: int, heads: int, kernel: KernelName = "sdpa") -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    """Ours and torch's, with the same random weights and biases, in float64."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(dim, heads, kernel=kernel).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    return ours, theirs


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("heads", [1, 3, 12])
def test_self_attention_equals_torch(kernel: KernelName, heads: int) -> None:
    ours, theirs = twins(12, heads, kernel)
    x = torch.randn(4, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("heads", [1, 3, 12])
def test_cross_attention_equals_torch(kernel: KernelName, heads: int) -> None:
    ours, theirs = twins(12, heads, kernel)
    x, memory = torch.randn(4, 5, 12, dtype=torch.float64), torch.randn(4, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory, need_weights=False)[0])


def test_values_of_other_tokens_equal_torch() -> None:
    ours, theirs = twins(12, 3)
    x = torch.randn(4, 5, 12, dtype=torch.float64)
    keys, values = (torch.randn(4, 7, 12, dtype=torch.float64) for _ in range(2))
    expected = theirs(x, keys, values, need_weights=False)[0]
    torch.testing.assert_close(ours(x, ours.keys_values(keys, values)), expected)
    narrow = MultiHeadAttention(12, 3, memory_dim=12, kv_heads=1).double()
    torch.testing.assert_close(narrow(x, narrow.keys_values(keys, keys)), narrow(x, keys))
    other = MultiHeadAttention(12, 3, memory_dim=5).double()
    torch.testing.assert_close(other(x, other.keys_values(keys[..., :5], keys[..., :5])), other(x, keys[..., :5]))


def test_attending_to_itself_as_memory_is_self_attention() -> None:
    ours, _ = twins(8, 2)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), ours(x, x))


@pytest.mark.parametrize("kernel", TRAINABLE)
def test_a_causal_mask_and_padding_equal_torch(kernel: KernelName) -> None:
    ours, theirs = twins(12, 3, kernel)
    x = torch.randn(4, 5, 12, dtype=torch.float64)
    valid = torch.tensor([5, 3, 1, 4])[:, None] > torch.arange(5)
    behind = torch.ones(5, 5, dtype=torch.bool).triu(1)  # torch: True = may not attend
    expected = theirs(x, x, x, attn_mask=behind, key_padding_mask=~valid, need_weights=False)[0]
    torch.testing.assert_close(ours(x, mask=Causal() & Padding(valid)), expected)


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_shared_heads_equal_repeated_ones(kernel: KernelName, kv_heads: int) -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(8, 4, kv_heads=kv_heads, kernel=kernel).double()
    whole, _ = twins(8, 4)
    query, key, value = ours.qkv.weight.split(ours.widths)
    parts = [w.unflatten(0, (kv_heads, 2)).repeat_interleave(4 // kv_heads, 0).flatten(0, 1) for w in (key, value)]
    with torch.no_grad():
        whole.qkv.weight.copy_(torch.cat([query, *parts]))
        whole.qkv.bias.zero_()
        whole.output.load_state_dict(ours.output.state_dict())
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x, mask=Causal()), whole(x, mask=Causal()))


@pytest.mark.parametrize("kernel", TRAINABLE)
@pytest.mark.parametrize("steps", [(1,) * 6, (3, 1, 2), (6,)])
def test_decoding_with_a_cache_equals_all_at_once(kernel: KernelName, steps: tuple[int, ...]) -> None:
    ours, _ = twins(8, 2, kernel)
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    cache = KeyValueCache(6)
    parts = [ours(part, mask=Causal(), cache=cache) for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ours(x, mask=Causal()))
    with pytest.raises(ValueError, match="the cache holds 6 tokens, not 7"):
        ours(x[:, :1], cache=cache)


def test_a_memory_of_another_size() -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(8, 2, memory_dim=5).double()
    theirs = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True, dtype=torch.float64)
    assert ours.from_memory is not None
    key, value = ours.from_memory.weight.chunk(2)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.qkv.weight)
        theirs.k_proj_weight.copy_(key)
        theirs.v_proj_weight.copy_(value)
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, memory = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    expected = theirs(x, memory, memory, need_weights=False)[0]
    torch.testing.assert_close(ours(x, memory), expected)
    torch.testing.assert_close(ours(x, ours.keys_values(memory)), expected)


def test_gradients_by_finite_differences() -> None:
    ours, _ = twins(4, 2)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, (x, memory))
    assert torch.autograd.gradcheck(lambda x: ours(x), (x,))


@pytest.mark.parametrize("kernel", TRAINABLE)
def test_dropout_only_in_training(kernel: KernelName) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, dropout=0.5, kernel=kernel)
    without = MultiHeadAttention(8, 2, kernel=kernel)
    without.load_state_dict(attention.state_dict())
    x = torch.randn(3, 6, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))
    assert torch.equal(attention(x), without(x))


@pytest.mark.parametrize("with_memory", [False, True])
def test_the_kernel_gets_what_sdpa_needs_for_its_fused_path(with_memory: bool) -> None:
    attention = MultiHeadAttention(8, 2)
    strides = []

    def spy(query: Tensor, key: Tensor, value: Tensor, mechanism: Mechanism, **_) -> Tensor:
        strides.extend(t.stride(-1) for t in (query, key, value))
        assert query.shape == (3, 2, 5, 4)
        assert mechanism.score.scale == pytest.approx(0.5)
        return query

    attention.kernel = spy  # pyright: ignore[reportAttributeAccessIssue]
    attention(torch.randn(3, 5, 8), torch.randn(3, 6, 8) if with_memory else None)
    assert strides == [1, 1, 1]


def test_initial_weights_are_glorot_uniform_by_projection() -> None:
    attention = MultiHeadAttention(64, 4)
    bound = (6 / (64 + 64)) ** 0.5
    for weight in (*attention.qkv.weight.chunk(3), attention.output.weight):
        assert 0.98 * bound < weight.abs().max() <= bound
    assert attention.qkv.bias.abs().max() == 0
    assert attention.output.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 12, "heads": 5}, r"heads must divide the 12 features of a token: one of \[1, 2, 3, 4, 6, 12\], got 5"),
        ({"dim": 12, "heads": 0}, "heads must divide"),
        ({"dim": 12, "heads": -3}, "heads must divide"),
        ({"dim": 0, "heads": 1}, "dim must be at least 1, got 0"),
        ({"dim": 12, "heads": 4, "memory_dim": 0}, "memory_dim must be at least 1, got 0"),
        ({"dim": 12, "heads": 4, "kv_heads": 3}, r"kv_heads must divide the 4 heads: one of \[1, 2, 4\], got 3"),
        (
            {"dim": 12, "heads": 4, "soft_cap": 5.0, "kernel": "sdpa"},
            "kernel=sdpa cannot compute this: .*; auto or eager or chunked can",
        ),
        ({"dim": 4, "heads": 1, "dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dim": 4, "heads": 1, "dropout": -0.1}, "dropout must be"),
        (
            {"dim": 4, "heads": 1, "kernel": "flash"},
            "must be one of auto, eager, sdpa, chunked, flex, got 'flash'",
        ),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**arguments)
