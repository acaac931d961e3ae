"""What every module on sets promises: order, padding, gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attelbo.attention import MultiHeadAttention, Padding
from attelbo.attention.sets import ISAB, PMA, SAB, Perceiver, SlotAttention
from attelbo.attention.sets.perceiver import LookBlock

SLOTS = torch.tensor([[0.1, -0.4, 0.3, 1.2], [-0.7, 0.2, 0.5, -0.9], [0.8, 0.6, -1.1, 0.4]], dtype=torch.float64)


class FixedSlots(SlotAttention):
    """Slot attention that begins with the same slots each time."""

    def initial(self, batch: int, n_slots: int | None = None) -> Tensor:
        return (SLOTS + self.mean * self.log_std).expand(batch, -1, -1)


EQUIVARIANT: dict[str, Callable[[], nn.Module]] = {
    "SAB": lambda: SAB(4, 2),
    "SAB without norm": lambda: SAB(4, 2, norm=False),
    "ISAB": lambda: ISAB(4, 2, 3),
}
INVARIANT: dict[str, Callable[[], nn.Module]] = {
    "PMA": lambda: PMA(4, 2, 3),
    "Perceiver": lambda: Perceiver(4, n_latents=3, heads=2, layers=1),
    "Perceiver of three rounds": lambda: Perceiver(4, n_latents=3, heads=2, layers=2, rounds=3),
    "slots": lambda: FixedSlots(4, n_slots=3),
}
MODULES = {**EQUIVARIANT, **INVARIANT}

modules = pytest.mark.parametrize("name", MODULES)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(name: str) -> nn.Module:
    """In float64, with random weights."""
    torch.manual_seed(0)
    module = MODULES[name]().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


@modules
def test_order(name: str) -> None:
    module, x, order = made(name), draw(2, 6, 4), torch.tensor([3, 0, 5, 1, 4, 2])
    expected = module(x)[:, order] if name in EQUIVARIANT else module(x)
    torch.testing.assert_close(module(x[:, order]), expected)


@modules
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e9])
def test_padding_has_no_influence_on_output_or_gradient(name: str, poison: float) -> None:
    """Each set of a padded batch is treated as by itself."""
    module, x = made(name), draw(3, 6, 4)
    valid = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    out = module(x.masked_fill(~valid.unsqueeze(-1), poison), mask=Padding(valid))
    alone = [module(row[there].unsqueeze(0))[0] for row, there in zip(x, valid, strict=True)]
    if name in EQUIVARIANT:
        out, alone = out[valid], torch.cat(alone)
    else:
        alone = torch.stack(alone)
    torch.testing.assert_close(out, alone)
    gradients = torch.autograd.grad(out.square().sum(), list(module.parameters()))
    expected = torch.autograd.grad(alone.square().sum(), list(module.parameters()))
    torch.testing.assert_close(gradients, expected)


@modules
def test_a_set_without_elements_is_finite(name: str) -> None:
    module, x = made(name), draw(2, 3, 4).requires_grad_()
    out = module(x, mask=Padding(torch.tensor([[False] * 3, [True] * 3])))
    assert out.isfinite().all()
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert (gradient[0] == 0).all()
    assert gradient.isfinite().all()


@modules
def test_every_element_counts_and_every_parameter_learns(name: str) -> None:
    module, x = made(name), draw(2, 6, 4).requires_grad_()
    out = module(x)
    (out * draw(*out.shape, seed=2)).sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(-1) > 0).all()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@modules
def test_gradients_by_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(made(name), (draw(1, 3, 4).requires_grad_(),))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # plain vmap on a CPU; replicas know better
@modules
def test_can_be_stacked_by_vmap(name: str) -> None:
    module, x = made(name), draw(2, 3, 5, 4)
    torch.testing.assert_close(torch.vmap(module)(x), torch.stack([module(one) for one in x]))


@pytest.mark.parametrize("kind", [SAB, lambda *given, **named: ISAB(*given, 3, **named), PMA])
def test_every_block_has_the_scale_and_the_norms_that_are_asked_for(kind: Callable[..., nn.Module]) -> None:
    parts = list(kind(4, 2, scale=0.3, norm=False).modules())
    assert not any(isinstance(part, nn.LayerNorm) for part in parts)
    assert {part.mechanism.score.scale for part in parts if isinstance(part, MultiHeadAttention)} == {0.3}


def test_a_perceiver_looks_with_the_scale_that_is_asked_for() -> None:
    parts = Perceiver(4, n_latents=3, heads=2, rounds=2, look_scale=0.3).modules()
    assert {part.attention.mechanism.score.scale for part in parts if isinstance(part, LookBlock)} == {0.3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAB(6, 4), "heads must divide the 6 features"),
        (lambda: ISAB(4, 2, 0), "n_points must be at least 1, got 0"),
        (lambda: PMA(4, 2, 0), "n_seeds must be at least 1, got 0"),
        (lambda: Perceiver(4, n_latents=0), "n_latents must be at least 1, got 0"),
        (lambda: Perceiver(4, rounds=0), "rounds must be at least 1, got 0"),
        (lambda: Perceiver(6, heads=4), "heads must divide the 6 features"),
        (lambda: SlotAttention(4, n_slots=0), "n_slots must be at least 1, got 0"),
        (lambda: SlotAttention(4, iterations=0), "iterations must be at least 1, got 0"),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
