"""What every block on feature maps promises: any size, any layout, a gradient everywhere, rows that do not mix."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import (
    FEATURE_MAP_ATTENTION,
    AxialAttention2d,
    FeatureMapAttention,
    NonLocal2d,
    WindowAttention2d,
)

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda make=make: make(8, 2) for name, make in FEATURE_MAP_ATTENTION.items()},
    "non_local of pooled": lambda: NonLocal2d(8, pool=2),
    "shifted window": lambda: WindowAttention2d(8, 2, window=3, shift=2),
}
ADDING = {name for name in BLOCKS if name not in ("squeeze_excite", "cbam")}
SIZES = [(4, 4), (8, 8), (1, 1), (7, 5), (1, 9), (2, 3)]

blocks = pytest.mark.parametrize("name", BLOCKS)
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def opened(name: str) -> nn.Module:
    """In float64, away from its initial zeros."""
    torch.manual_seed(0)
    block = BLOCKS[name]().double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_every_name_has_a_block() -> None:
    assert FEATURE_MAP_ATTENTION.keys() == set(get_args(FeatureMapAttention))


@sizes
@blocks
def test_shape_layout_and_rows(name: str, size: tuple[int, int]) -> None:
    block, x = opened(name), draw(3, 8, *size)
    out = block(x)
    assert out.shape == x.shape
    last = x.contiguous(memory_format=torch.channels_last)
    assert block(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(block(last), out)
    torch.testing.assert_close(torch.cat([block(row) for row in x.split(1)]), out)


@pytest.mark.parametrize("name", sorted(ADDING))
def test_what_ties_pixels_together_starts_as_the_identity_and_leaves_it(name: str) -> None:
    torch.manual_seed(0)
    block, x = BLOCKS[name](), torch.randn(2, 8, 5, 6)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    block(x).square().sum().backward()
    optimizer.step()
    assert not torch.allclose(block(x), x, atol=1e-3)


@blocks
def test_every_parameter_learns(name: str) -> None:
    block, x = opened(name), draw(3, 8, 7, 6)
    (block(x) * draw(3, 8, 7, 6).flip(0)).sum().backward()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", ["self", "non_local", "axial", "squeeze_excite", "cbam"])
def test_every_pixel_sees_every_other(name: str) -> None:
    block, x = opened(name), draw(1, 8, 4, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].square().sum(), x)
    assert (gradient.abs().sum(1) > 0).all()


@blocks
def test_gradients_by_finite_differences(name: str) -> None:
    block, x = opened(name), draw(1, 8, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # plain vmap on a CPU; replicas know better
@blocks
def test_can_be_stacked_by_vmap(name: str) -> None:
    block, x = opened(name), draw(2, 3, 8, 5, 4)
    torch.testing.assert_close(torch.vmap(block)(x), torch.stack([block(one) for one in x]))


@pytest.mark.parametrize("make", [AxialAttention2d, WindowAttention2d])
def test_heads_must_divide_the_channels(make: Callable[[int, int], nn.Module]) -> None:
    with pytest.raises(ValueError, match="heads must divide the 6 features"):
        make(6, 4)
