"""What the convolutional and the residual pair promise beyond the contract table."""

import pytest
import torch
from torch import nn

from attelbo.attention import FEATURE_MAP_ATTENTION, SelfAttention2d
from attelbo.networks import ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder
from attelbo.networks.layers import image_shape
from attelbo.networks.resnet import ResidualBlock

PARTS = {
    "conv encoder": lambda **arguments: ConvEncoder((1, 28, 12), **arguments),
    "conv decoder": lambda **arguments: ConvDecoder((5,), (1, 28, 12), **arguments),
    "resnet encoder": lambda **arguments: ResNetEncoder((1, 28, 12), **arguments),
    "resnet decoder": lambda **arguments: ResNetDecoder((5,), (1, 28, 12), **arguments),
}
parts = pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)


def maps_with_attention(network: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    """The shapes (C, H, W) that reach an attention block, in order."""
    seen = []
    for module in network.modules():
        if isinstance(module, SelfAttention2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[1:])))
    network(x)
    return seen


def test_attention_sits_at_the_chosen_heights() -> None:
    x, z = torch.rand(2, 1, 28, 12), torch.randn(2, 5)
    assert maps_with_attention(PARTS["conv encoder"](attention_at=[7, 4]), x) == [(64, 7, 3), (128, 4, 2)]
    assert maps_with_attention(PARTS["conv decoder"](attention_at=[7, 4]), z) == [(128, 4, 2), (64, 7, 3)]
    assert maps_with_attention(PARTS["resnet encoder"](attention_at=[7, 14]), x) == [(32, 14, 6), (64, 7, 3)]
    assert maps_with_attention(PARTS["resnet decoder"](attention_at=[7, 14]), z) == [(64, 7, 3), (32, 14, 6)]
    assert maps_with_attention(PARTS["conv encoder"](), x) == []


def test_the_middle_is_block_attention_block_at_the_smallest_size() -> None:
    x, z = torch.rand(2, 1, 28, 12), torch.randn(2, 5)
    encoder, decoder = (PARTS[f"resnet {side}"](middle=True, attention_at=[14]) for side in ("encoder", "decoder"))
    assert maps_with_attention(encoder, x) == [(32, 14, 6), (64, 7, 3)]
    assert maps_with_attention(decoder, z) == [(64, 7, 3), (32, 14, 6)]
    names = [type(layer).__name__ for layer in encoder.layers]
    assert names[-5:-2] == ["ResidualBlock", "SelfAttention2d", "ResidualBlock"]
    assert [type(layer).__name__ for layer in decoder.layers][1:4] == names[-5:-2]


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_without_attention_the_middle_has_none(side: str) -> None:
    without = PARTS[f"resnet {side}"](middle=True, attention=None)
    assert maps_with_attention(without, torch.rand(2, *without.in_shape)) == []
    blocks = [module for module in without.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 3 + 2
    with pytest.raises(ValueError, match=r"attention_at must be \[\] where attention is null, got \[7\]"):
        PARTS[f"resnet {side}"](attention=None, attention_at=[7])


@parts
@pytest.mark.parametrize("attention", FEATURE_MAP_ATTENTION)
def test_attention_of_each_kind_learns(make, attention: str) -> None:
    torch.manual_seed(0)
    network = make(attention_at=[7, 14], attention=attention)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.rand(3, *network.in_shape)
    out = network(x)
    assert out.shape == (3, *network.out_shape)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert any(type(module).__module__.startswith("attelbo.attention") for module in network.modules())


def test_sizes_of_the_features() -> None:
    assert PARTS["conv encoder"]().out_shape == (128, 4, 2)
    assert PARTS["resnet encoder"]().out_shape == (64, 7, 3)
    assert ResNetEncoder((1, 28, 12), channels=[16]).out_shape == (16, 28, 12)


def test_feature_maps_are_channels_last() -> None:
    for name in ("conv encoder", "resnet encoder"):
        h = PARTS[name](attention_at=[7])(torch.rand(2, 1, 28, 12))
        assert h.is_contiguous(memory_format=torch.channels_last)


def test_every_pixel_counts() -> None:
    """No row or column is lost at an odd size, on the way down or on the way up."""
    torch.manual_seed(0)
    x = torch.rand(1, 1, 7, 5, requires_grad=True)
    h = ConvEncoder((1, 7, 5), activation="silu")(x)
    (gradient,) = torch.autograd.grad(h.square().sum(), x)
    assert (gradient != 0).all()
    eta = ConvDecoder((3,), (1, 7, 5), activation="silu")(torch.randn(2, 3))
    assert (eta[0] != eta[1]).all()


def test_residual_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(ResidualBlock(16, 8, "silu")(x), x)


@parts
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": []}, r"channels must name at least one level, got \[\]"),
        ({"channels": [16, 0]}, r"channels must be positive numbers, got \[16, 0\]"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"attention_at": [14], "attention": "local"}, "attention must be one of self, non_local, .* got 'local'"),
        ({"channels": [16, 24], "attention_at": [14], "heads": 7}, "heads must divide the (16|24) features"),
    ],
)
def test_bad_arguments(make, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("name", "heights"),
    [
        ("conv encoder", "14, 7, 4"),
        ("conv decoder", "14, 7, 4"),
        ("resnet encoder", "28, 14, 7"),
        ("resnet decoder", "28, 14, 7"),
    ],
)
def test_a_height_that_does_not_occur(name: str, heights: str) -> None:
    with pytest.raises(ValueError, match=rf"attention_at must .*: \[{heights}\] occur, \[5, 0\] do not"):
        PARTS[name](attention_at=[7, 5, 0])


@pytest.mark.parametrize("name", ["resnet encoder", "resnet decoder"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"groups": 5}, r"groups must divide .* got 5 for channels \[(16, 32, 64|64, 32, 16)\]"),
        ({"groups": 0}, "groups must divide"),
        ({"groups": 16}, "groups of at least two"),
    ],
)
def test_bad_arguments_of_the_residual_pair(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PARTS[name](**arguments)


@pytest.mark.parametrize("network", [ConvEncoder, ResNetEncoder])
def test_encoders_want_an_image(network) -> None:
    with pytest.raises(ValueError, match=r"in_shape must be \(channels, height, width\)"):
        network((64,))
    with pytest.raises(ValueError, match="in_shape must be positive"):
        network((1, 0, 8))


@pytest.mark.parametrize("network", [ConvDecoder, ResNetDecoder])
def test_decoders_want_an_image(network) -> None:
    with pytest.raises(ValueError, match=r"out_shape must be \(channels, height, width\)"):
        network((5,), (64,))
    with pytest.raises(ValueError, match="in_shape must be positive"):
        network((0,), (1, 8, 8))


def test_a_vector_is_told_what_takes_vectors():
    with pytest.raises(ValueError, match=r"got \(64,\); vectors are for models with model/encoder=mlp"):
        image_shape("in_shape", (64,))
