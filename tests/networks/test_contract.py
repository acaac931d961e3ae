"""The table that every encoder and decoder in conf/ must pass, over images of many shapes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attelbo.building import build
from attelbo.experiments.configuration import compose
from attelbo.networks import Decoder, Encoder

CONF = Path(__file__).parents[2] / "conf"
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 7, 5), (2, 33, 17), (1, 1, 1), (3, 1, 6), (4, 10, 3)]
LATENT_SHAPES = [(5,), (1,), (2, 3, 4), (2, 2, 1), (3, 3, 2)]  # of 9 x 6 pixels, 2 x 1 and 3 x 2 are small maps


def written() -> dict[str, dict[str, dict[str, Any]]]:
    """Group -> every part of it, as its YAML file and what it inherits say. All are composed at once."""
    files = sorted(path for group in ("encoder", "decoder") for path in (CONF / "model" / group).glob("*.yaml"))
    words = [f"+model/{path.parent.name}@all.{path.parent.name}.{path.stem}={path.stem}" for path in files]
    return compose("train", words).config["all"]


def specs(group: str) -> dict[str, dict[str, Any]]:
    """Every part of a group; where it can have attention, once without and once with it.

    Which heights occur depends on the image, so the table chooses one, whatever the file says.
    """
    found = {}
    for name, spec in WRITTEN[group].items():
        if "attention_at" not in spec:
            found[name] = spec
        elif not spec["attention_at"]:
            found[name] = spec
            found[f"{name}+attention"] = {**spec, "attention_at": "half"}
        else:
            found[name] = {**spec, "attention_at": "half"}
    return found


def make(spec: dict[str, Any], image: tuple[int, ...], **shapes: tuple[int, ...]) -> nn.Module:
    """The part, away from its initial zeros: a zero weight hides what lies behind it."""
    if spec.get("attention_at") == "half":
        spec = {**spec, "attention_at": [(image[1] + 1) // 2]}
    torch.manual_seed(0)
    part = build(spec, **shapes)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return part


def encoder_of(spec: dict[str, Any], shape: tuple[int, ...]) -> Encoder:
    part = make(spec, shape, in_shape=shape)
    assert isinstance(part, Encoder)
    return part


def decoder_of(spec: dict[str, Any], shape: tuple[int, ...], latent: tuple[int, ...] = (5,)) -> Decoder:
    part = make(spec, shape, in_shape=latent, out_shape=shape)
    assert isinstance(part, Decoder)
    return part


WRITTEN = written()
ENCODERS, DECODERS = specs("encoder"), specs("decoder")
encoders = pytest.mark.parametrize("spec", ENCODERS.values(), ids=ENCODERS)
decoders = pytest.mark.parametrize("spec", DECODERS.values(), ids=DECODERS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def assert_every_parameter_learns(part: nn.Module, output: Tensor) -> None:
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def assert_rows_are_independent(part: nn.Module, x: Tensor) -> None:
    x.requires_grad_()
    output = part(x)
    (gradient,) = torch.autograd.grad((output[1] * torch.randn_like(output[1])).sum(), x)
    influence = gradient.flatten(1).abs().sum(1)
    assert influence[1] > 0
    assert influence[0] == influence[2] == 0


def assert_deterministic_and_row_by_row(part: nn.Module, x: Tensor) -> None:
    """In float64: a group of two channels on one pixel magnifies rounding."""
    part.double().eval()
    x = x.double()
    output = part(x)
    assert torch.equal(part(x), output)
    torch.testing.assert_close(torch.cat([part(row) for row in x.split(1)]), output)


def test_the_table_is_not_empty() -> None:
    assert {"mlp", "conv", "conv+attention", "resnet", "resnet+attention"} <= ENCODERS.keys()
    assert ENCODERS.keys() == DECODERS.keys()


@pytest.mark.parametrize("group", ["encoder", "decoder"])
def test_every_file_as_it_is_written_takes_the_digits(group: str) -> None:
    for spec in WRITTEN[group].values():
        given = {"in_shape": (1, 8, 8)} if group == "encoder" else {"in_shape": (5,), "out_shape": (1, 8, 8)}
        part = build(spec, **given)
        assert part(torch.rand(2, *part.in_shape)).shape == (2, *part.out_shape)


@shapes
@encoders
def test_encoder(spec: dict[str, Any], shape: tuple[int, ...]) -> None:
    encoder = encoder_of(spec, shape)
    x = torch.rand(3, *shape)
    h = encoder(x)
    assert encoder.in_shape == shape
    assert h.shape == (3, *encoder.out_shape)
    assert h.isfinite().all()
    assert_every_parameter_learns(encoder, h)
    assert_rows_are_independent(encoder, x.clone())
    assert_deterministic_and_row_by_row(encoder, x)


@shapes
@decoders
def test_decoder(spec: dict[str, Any], shape: tuple[int, ...]) -> None:
    decoder = decoder_of(spec, shape)
    z = torch.randn(3, 5)
    eta = decoder(z)
    assert decoder.in_shape == (5,)
    assert decoder.out_shape == shape
    assert eta.shape == (3, *shape)
    assert eta.isfinite().all()
    assert_every_parameter_learns(decoder, eta)
    assert_rows_are_independent(decoder, z.clone())
    assert_deterministic_and_row_by_row(decoder, z)


@decoders
def test_nothing_but_the_sum_of_shares_lies_behind_the_output_of_a_decoder(spec: dict[str, Any]) -> None:
    decoder, z = decoder_of(spec, (2, 9, 6)), torch.randn(3, 5)
    before = decoder(z)
    with torch.no_grad():
        decoder.output.get_parameter("bias").add_(2.0)
    torch.testing.assert_close(decoder(z), before + 2.0)


@pytest.mark.parametrize("latent", LATENT_SHAPES, ids=str)
@decoders
def test_decoder_takes_latents_of_any_shape(spec: dict[str, Any], latent: tuple[int, ...]) -> None:
    decoder = decoder_of(spec, (2, 9, 6), latent)
    assert decoder.in_shape == latent
    assert decoder(torch.randn(4, *latent)).shape == (4, 2, 9, 6)


any_image = st.tuples(st.integers(1, 4), st.integers(1, 45), st.integers(1, 45))


@encoders
@settings(max_examples=8, deadline=None)
@given(shape=any_image)
def test_images_of_any_size_can_be_encoded(spec: dict[str, Any], shape: tuple[int, ...]) -> None:
    encoder = encoder_of(spec, shape)
    assert encoder(torch.rand(2, *shape)).shape == (2, *encoder.out_shape)


@decoders
@settings(max_examples=8, deadline=None)
@given(shape=any_image)
def test_images_of_any_size_can_be_decoded(spec: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert decoder_of(spec, shape)(torch.randn(2, 5)).shape == (2, *shape)
