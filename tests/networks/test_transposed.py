"""The transposed convolution against torch's own: value, first and second derivatives, stacked."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, stack_module_state, vmap

from attelbo.networks.transposed import TransposedConv2d

# One for each of its ways, at sizes that torch must add a pixel to and at those where it must not.
CASES = {
    "few channels": (9, 1, (3, 2), (6, 3)),
    "some channels": (4, 6, (3, 2), (5, 4)),
    "many channels": (2, 32, (3, 2), (6, 3)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def make(case: tuple) -> tuple[TransposedConv2d, nn.ConvTranspose2d, Tensor]:
    torch.manual_seed(0)
    c_in, c_out, size, target = case
    ours = TransposedConv2d(c_in, c_out, size, target)
    extra = tuple(new - (2 * old - 1) for new, old in zip(target, size, strict=True))
    theirs = nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=extra)
    theirs.load_state_dict(ours.state_dict())
    return ours.double(), theirs.double(), torch.randn(3, c_in, *size, dtype=torch.float64)


@cases
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
def test_value_and_gradient_are_those_of_torch(case: tuple, layout: torch.memory_format) -> None:
    ours, theirs, x = make(case)
    results = []
    for layer in (ours, theirs):
        layer.to(memory_format=layout)
        given = x.clone(memory_format=layout).requires_grad_()
        y = layer(given)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))
        results.append([y, given.grad, *(parameter.grad for parameter in layer.parameters())])
    assert results[0][0].shape[-2:] == case[3]
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@cases
def test_derivatives_by_finite_differences(case: tuple) -> None:
    ours, _, x = make(case)
    assert ours.bias is not None
    arguments = (x[:1].requires_grad_(), ours.weight, ours.bias)

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    assert gradcheck(layer, arguments)
    assert gradgradcheck(layer, arguments, fast_mode=True)


@cases
def test_stacked_layers_are_the_layers(case: tuple) -> None:
    """torch.func: the gradients of two layers with weights of their own, in one call."""
    layers = [make(case)[0], make(case)[0]]
    with torch.no_grad():
        layers[1].weight.mul_(-2)
    x = make(case)[2]

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(layers[0], parameters, (x,)).square().sum()

    stacked, _ = stack_module_state(layers)  # pyright: ignore[reportArgumentType]
    gradients = vmap(grad(loss))(stacked)
    for place, layer in enumerate(layers):
        layer(x).square().sum().backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(gradients[name][place], parameter.grad)


def test_autocast_is_torchs() -> None:
    ours, theirs, x = make(CASES["few channels"])
    ours.float()
    theirs.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x.float()), theirs(x.float()))
