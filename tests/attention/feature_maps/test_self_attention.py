"""Self-attention between the pixels of a feature map."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attelbo.attention import SelfAttention2d


def opened(channels: int, heads: int) -> SelfAttention2d:
    """A block in float64 that is no longer the identity."""
    torch.manual_seed(0)
    block = SelfAttention2d(channels, heads).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def test_starts_as_the_identity_and_leaves_it_at_the_first_step() -> None:
    torch.manual_seed(0)
    block = SelfAttention2d(8, 2)
    x = torch.randn(3, 8, 4, 5)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.attention.output.weight.grad is not None
    assert (block.attention.output.weight.grad != 0).all()


def test_equals_torch_on_shared_weights() -> None:
    block = opened(6, 2)
    theirs = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": block.attention.qkv.weight,
            "in_proj_bias": block.attention.qkv.bias,
            "out_proj.weight": block.attention.output.weight,
            "out_proj.bias": block.attention.output.bias,
        }
    )
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    normed = F.layer_norm(tokens, (6,), block.norm.weight, block.norm.bias)
    expected = tokens + theirs(normed, normed, normed)[0]
    torch.testing.assert_close(block(x), expected.transpose(1, 2).reshape(2, 6, 3, 4))


def test_permuting_the_pixels_permutes_the_output() -> None:
    block = opened(8, 4)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    order = torch.randperm(15)

    def permute(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2)[..., order].unflatten(2, (3, 5))

    assert not torch.equal(permute(x), x)
    torch.testing.assert_close(block(permute(x)), permute(block(x)))


def test_every_pixel_sees_every_other() -> None:
    block = opened(4, 1)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].square().sum(), x)
    assert (gradient.abs().sum(1) > 0).all()


def test_layout_changes_no_number_and_channels_last_stays() -> None:
    block = opened(8, 2)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    last = x.contiguous(memory_format=torch.channels_last)
    assert block(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(block(last), block(x))


def test_gradients_by_finite_differences() -> None:
    block = opened(2, 1)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="heads must divide the 6 features"):
        SelfAttention2d(6, 4)
