"""The fully connected pair against hand counts and the plain formula."""

import pytest
import torch
from torch import nn

from attelbo.networks import MLPDecoder, MLPEncoder


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_iwae_papers_network_by_default() -> None:
    """784-200-200 tanh and its mirror image from 50 latents: parameters counted by hand."""
    encoder = MLPEncoder((1, 28, 28))
    decoder = MLPDecoder((50,), (1, 28, 28))
    assert encoder.out_shape == (200,)
    assert count(encoder) == (784 * 200 + 200) + (200 * 200 + 200) == 197_200
    assert count(decoder) == (50 * 200 + 200) + (200 * 200 + 200) + (200 * 784 + 784) == 207_984
    assert [type(m).__name__ for m in encoder.layers] == ["Flatten", "Linear", "Tanh", "Linear", "Tanh"]


def test_computes_the_formula() -> None:
    torch.manual_seed(0)
    decoder = MLPDecoder((3,), (2, 2, 2), hidden=[4], activation="relu").double()
    z = torch.randn(5, 3, dtype=torch.float64)
    hidden, output = decoder.layers[1], decoder.output
    assert isinstance(hidden, nn.Linear)
    expected = torch.clamp(z @ hidden.weight.T + hidden.bias, min=0) @ output.weight.T + output.bias
    torch.testing.assert_close(decoder(z), expected.reshape(5, 2, 2, 2))


def test_batch_norm_stands_before_the_activation() -> None:
    torch.manual_seed(0)
    encoder = MLPEncoder((6,), hidden=[4], activation="relu", batch_norm=True)
    x = torch.randn(100, 6)
    linear = encoder.layers[1]
    assert isinstance(linear, nn.Linear)
    before = linear(x)
    expected = ((before - before.mean(0)) / (before.var(0, correction=0) + 1e-5).sqrt()).relu()
    torch.testing.assert_close(encoder(x), expected)
    torch.testing.assert_close(encoder.eval()(x[:1]), encoder(x)[:1])  # a row no longer depends on the others
    assert [type(m).__name__ for m in MLPDecoder((3,), (2,), hidden=[4], batch_norm=True).layers] == [
        *("Flatten", "Linear", "BatchNorm1d", "Tanh")
    ]


def test_gates_are_half_of_the_units_of_a_layer() -> None:
    torch.manual_seed(0)
    encoder = MLPEncoder((6,), hidden=[4, 3], activation="glu").double()
    x = h = torch.randn(100, 6, dtype=torch.float64)
    for layer, units in ((encoder.layers[1], 4), (encoder.layers[3], 3)):
        assert isinstance(layer, nn.Linear)
        (w, v), (b, c) = layer.weight.split(units), layer.bias.split(units)
        h = (h @ w.T + b) / (1 + (-(h @ v.T) - c).exp())
    torch.testing.assert_close(encoder(x), h)
    assert encoder.out_shape == (3,)
    wide = MLPEncoder((512,), hidden=[1024], activation="glu")
    u = wide.layers[2](torch.randn(1000, 2048))  # of unit-normal sums
    following = MLPDecoder((1024,), (1,), hidden=[2048], activation="glu").layers[1]
    assert following(u).square().mean().item() == pytest.approx(1.0, rel=0.05)


def test_no_hidden_layer_is_a_linear_model() -> None:
    encoder = MLPEncoder((2, 3), hidden=[])
    x = torch.rand(4, 2, 3)
    assert encoder.out_shape == (6,)
    assert torch.equal(encoder(x), x.flatten(1))
    decoder = MLPDecoder((3,), (2, 3), hidden=[])
    z = torch.randn(4, 3)
    torch.testing.assert_close(decoder(2 * z), 2 * decoder(z))  # biases start at zero


def test_data_that_is_no_image_goes_through() -> None:
    assert MLPEncoder((7,))(torch.rand(2, 7)).shape == (2, 200)
    assert MLPDecoder((3,), (7,))(torch.randn(2, 3)).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPEncoder((1, 8, 8), hidden=[200, 0]), r"hidden must be positive numbers, got \[200, 0\]"),
        (lambda: MLPEncoder((1, 0, 8)), "in_shape must be positive numbers"),
        (lambda: MLPDecoder((0,), (1, 8, 8)), "in_shape must be positive numbers"),
        (lambda: MLPDecoder((2,), (1, 0, 8)), "out_shape must be positive numbers"),
        (lambda: MLPEncoder((1, 8, 8), activation="swish"), "activation must be one of"),  # pyright: ignore
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
