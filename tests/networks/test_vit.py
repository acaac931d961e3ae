"""Patches as tokens on either side of z: where each pixel goes, and what is known of places."""

from typing import Any

import pytest
import torch
from torch import nn

from attelbo.building import build, part
from attelbo.errors import ConfigError
from attelbo.experiments.configuration import compose


def spec(side: str, *words: str) -> dict[str, Any]:
    """conf/model/encoder/vit.yaml or the decoder's, with small layers."""
    small = (f"model.{side}.dim=16", f"model.{side}.attention.heads=2", f"model.{side}.network.layers=1")
    return compose("train", [f"model/{side}=vit", *small, *words]).config["model"][side]


def without_position(side: str, *words: str) -> dict[str, Any]:
    return spec(side, f"model/position@model.{side}.position=none", *words)


@pytest.mark.parametrize("image", [(1, 8, 12), (1, 7, 9), (1, 4, 4), (1, 3, 2)])
def test_patches_come_back_where_they_were(image):
    """Patches of 16 pixels are the tokens of 16 features themselves: what is left is where each pixel goes."""
    encoder = build(without_position("encoder"), in_shape=image)
    decoder = build(without_position("decoder"), in_shape=encoder.out_shape, out_shape=image)
    encoder.network = decoder.network = nn.Identity()
    with torch.no_grad():
        encoder.embedding.project.weight.copy_(torch.eye(16).view(16, 1, 4, 4))
        encoder.embedding.project.bias.zero_()
        for layer in (decoder.tokens.linear, decoder.output):
            layer.weight.copy_(torch.eye(16))
            layer.bias.zero_()
    x = torch.rand(3, *image)
    h = encoder(x)
    assert h.shape == (3, 16, -(-image[1] // 4), -(-image[2] // 4))
    corner = x[:, 0, :4, :4]
    assert torch.equal(h[:, :, 0, 0].view(3, 4, 4)[:, : corner.shape[1], : corner.shape[2]], corner)
    assert torch.equal(decoder(h), x)


@pytest.mark.parametrize("known", [False, True])
def test_patches_that_change_places_do_so_in_h_unless_places_are_known(known):
    encoder = build(spec("encoder") if known else without_position("encoder"), in_shape=(1, 8, 8)).double()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    exchanged = x.roll((4, 4), (2, 3))  # of four patches each goes to the opposite corner
    expected = encoder(x).roll((1, 1), (2, 3))
    assert torch.allclose(encoder(exchanged), expected) is not known


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_every_token_hears_of_every_other(side):
    torch.manual_seed(0)
    shapes = {"in_shape": (1, 8, 8)} if side == "encoder" else {"in_shape": (5, 2, 2), "out_shape": (1, 8, 8)}
    network = build(spec(side), **shapes).double()
    x = torch.rand(1, *shapes["in_shape"], dtype=torch.float64, requires_grad=True)
    network(x)[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_layers_of_all_kinds_of_attention():
    for attention in ("differential", "gated", "latent"):
        encoder = build(spec("encoder", f"model/attention@model.encoder.attention={attention}"), in_shape=(1, 8, 8))
        assert type(encoder.network.blocks[0].attention).__name__.lower().startswith(attention)
        assert encoder(torch.rand(2, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.encoder.attention.heads=3", "model.encoder.attention: heads must divide the 64 features"),
        ("model.encoder.patch=0", "model.encoder: patch must be at least 1, got 0"),
        ("model.encoder.network.layers=0", "model.encoder.network: layers must be at least 1"),
        (
            "model/attention@model.encoder.attention=linear",
            "model/score@model.encoder.score: .*; ~model/score@model.encoder.score does without",
        ),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(word, message):
    node = compose("train", ["model/encoder=vit", word]).config["model"]["encoder"]
    with pytest.raises(ConfigError, match=f"^{message}"):
        part("encoder", node, in_shape=(1, 8, 8))


def test_linear_attention_does_without_score_and_normalizer():
    words = [
        *("model/attention@model.encoder.attention=linear", "~model/score@model.encoder.score"),
        "~model/normalizer@model.encoder.normalizer",
    ]
    assert build(spec("encoder", *words), in_shape=(1, 8, 8))(torch.rand(2, 1, 8, 8)).shape == (2, 16, 2, 2)
