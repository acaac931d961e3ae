"""Sprites: every combination once, each another picture, and what the factors say is what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.resident import unpack_bits
from attelbo.data.sources import Images, Sprites
from attelbo.data.sources.sprites import N_PLACES, PLACES, RADII, draw, pack_bits


def everything(size: int) -> Images:
    train, test = Sprites(size=size).load(Path("nowhere"))
    return Images(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]))


@pytest.mark.parametrize("size", [32, 64])
def test_every_combination_is_there_once_and_another_picture(size):
    x, y, _ = everything(size)
    assert x.shape == (3 * 4 * 8 * 16 * 16, 1, size, size // 8)
    assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
    assert len(y.unique(dim=0)) == len(y)
    assert y.amin(0).tolist() == [0] * 5
    assert y.amax(0).tolist() == [factor.n_values - 1 for factor in Sprites.factors]
    assert len(x.flatten(1).unique(dim=0)) == len(x)


def test_factors_say_what_is_drawn():
    x, y, _ = everything(32)
    pixels = unpack_bits(x)[:, 0].double()
    mass = pixels.sum((1, 2))
    grid = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    center = PLACES[0] + y[:, 3:].double() * (PLACES[1] - PLACES[0]) / (N_PLACES - 1)
    radius = RADII[0] + y[:, 1].double() * (RADII[1] - RADII[0]) / 3
    for dim, coordinate in ((0, pixels.sum(1) @ grid / mass), (1, pixels.sum(2) @ grid / mass)):
        # The centre of mass is off the centre of the disc by less than the radius, whatever the turn ...
        assert ((coordinate - center[:, dim]).abs() < 0.4 * radius).all()
        # ... and by nothing on average over the turns.
        for place in range(N_PLACES):
            at = y[:, 3 + dim] == place
            assert float((coordinate - center[:, dim])[at].mean()) == pytest.approx(0, abs=2e-3)
    for shape in range(3):
        area = torch.stack([mass[(y[:, 0] == shape) & (y[:, 1] == scale)].mean() for scale in range(4)])
        ratio = area / torch.linspace(*RADII, 4).double().square()
        assert (ratio / ratio[-1] - 1).abs().max() < 0.03
    border = torch.cat([pixels[:, [0, -1]].flatten(), pixels[:, :, [0, -1]].flatten()])
    assert border.max() == 0  # nothing is cut off


def test_a_quarter_turn_turns_the_picture():
    place = N_PLACES // 2
    for shape in range(3):
        upright, turned = (unpack_bits(draw(shape, 3, turn, 64)).view(16, 16, 64, 64) for turn in (0, 2))
        # Of the image at the place (i, j), a quarter turn to the left makes the one at (j, -1 - i).
        assert torch.equal(torch.rot90(upright[place, 3]), turned[3, -1 - place])


def test_bits_are_packed_as_numpy_does():
    pixels = torch.rand(5, 3, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    assert np.array_equal(pack_bits(pixels).numpy(), np.packbits(pixels.numpy(), axis=-1))
    assert torch.equal(unpack_bits(pack_bits(pixels)), pixels.to(torch.uint8))


def test_the_split_is_fixed_and_pinned(digits):
    """A change of these sums means that results of an earlier version no longer compare."""
    source = {"_target_": "attelbo.data.sources.Sprites", "test_size": 100}
    data = digits(name="sprites", source=source, validation_size=50)
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [24_426, 50, 100]
    assert (data.spec.kind, data.spec.shape, data.spec.n_classes) == ("binary", (1, 32, 32), None)
    assert data.checksums()["test"][:12] == "c0287e7b6efb"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 24}, r"^size must be a multiple of 8 and at least 32, got 24"),
        ({"size": 36}, r"^size must be a multiple of 8 and at least 32, got 36"),
        ({"test_size": 0}, r"^test_size must be in 1..24575, got 0"),
        ({"test_size": 24_576}, r"^test_size must be in 1..24575, got 24576"),
    ],
)
def test_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Sprites(**options)
