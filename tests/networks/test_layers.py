"""Sizes, initial weights and the small helpers of the networks."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attelbo.networks.layers import (
    NEAR_ZERO,
    Activation,
    ToFeatureMap,
    activation_layer,
    halvings,
    initialize,
    relu_layers,
)

ACTIVATIONS = get_args(Activation)


def test_halvings_round_up() -> None:
    assert halvings((7, 5), 4) == [(7, 5), (4, 3), (2, 2), (1, 1), (1, 1)]


@given(height=st.integers(1, 500), width=st.integers(1, 500), n=st.integers(0, 6))
def test_halving_n_times_divides_by_two_to_the_n(height: int, width: int, n: int) -> None:
    assert halvings((height, width), n)[-1] == (math.ceil(height / 2**n), math.ceil(width / 2**n))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_by_name(name: Activation) -> None:
    function = getattr(torch, name, None) or getattr(nn.functional, name)
    u = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation_layer(name)(u), function(u))


def test_unknown_activation_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of tanh, relu, .* got 'swish'"):
        activation_layer("swish")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layer", [nn.Linear(784, 200), nn.Conv2d(16, 32, 3), nn.ConvTranspose2d(32, 16, 3)])
def test_before_tanh_weights_are_glorot_uniform(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    torch.manual_seed(0)
    initialize(layer, "tanh")
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    torch.testing.assert_close(layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)
    assert layer.bias is not None
    assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("activation", [None, "relu"])
def test_all_of_it_times_a_scale(activation: Activation | None) -> None:
    plain, small = nn.Linear(30, 20), nn.Linear(30, 20)
    for layer, scale in ((plain, 1.0), (small, NEAR_ZERO)):
        torch.manual_seed(0)
        initialize(layer, activation, scale)
    torch.testing.assert_close(small.weight, NEAR_ZERO * plain.weight)
    torch.manual_seed(0)
    plain = relu_layers((4, 8, 3))
    torch.manual_seed(0)
    last = relu_layers((4, 8, 3), NEAR_ZERO)[-1]
    torch.testing.assert_close(last.weight, NEAR_ZERO * plain[-1].weight)


@pytest.mark.parametrize("name", [a for a in ACTIVATIONS if a != "tanh"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(1000, 1000),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1),
    ],
    ids=["linear", "conv", "strided", "transposed"],
)
def test_before_the_others_a_layer_keeps_the_second_moment(layer: nn.Module, name: Activation) -> None:
    """Unit-normal pre-activations, through the activation and the layer, have mean square 1 again."""
    torch.manual_seed(0)
    initialize(layer, name)  # pyright: ignore[reportArgumentType]
    u = torch.randn(500, 1000) if isinstance(layer, nn.Linear) else torch.randn(8, 64, 16, 16)
    v = layer(activation_layer(name)(u))
    if v.ndim == 4:
        v = v[..., 2:-2, 2:-2]  # padding lowers it at the border
    assert v.square().mean().item() == pytest.approx(1, rel=0.15)


def test_to_feature_map_is_channels_last_and_uses_every_weight_once() -> None:
    layer = ToFeatureMap((3,), 4, (2, 5))
    z = torch.randn(6, 3)
    maps = layer(z)
    assert maps.shape == (6, 4, 2, 5)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(maps.flatten(1).sort().values, layer.linear(z).sort().values)


def test_to_feature_map_of_a_map_of_that_size_is_a_convolution_with_one_pixel() -> None:
    layer = ToFeatureMap((3, 2, 5), 4, (2, 5))
    z = torch.randn(6, 3, 2, 5)
    maps = layer(z)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    weight = layer.linear.weight[..., None, None]
    torch.testing.assert_close(maps, nn.functional.conv2d(z, weight, layer.linear.bias))
    assert ToFeatureMap((3, 2, 4), 4, (2, 5)).linear.weight.shape == (40, 24)  # a map of another size is flattened
