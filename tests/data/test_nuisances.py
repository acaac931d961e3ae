"""Nuisances: what is drawn, that what is white stays white, and that an evaluation sees the same whenever it looks."""

import pytest
import torch
from scipy.stats import chisquare

from attelbo.data.nuisances import bytes_of_rows, with_nuisance
from attelbo.data.resident import ImageSplit

BITS = (torch.rand(40, 1, 6, 8, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
SPRITES = {"_target_": "attelbo.data.sources.Sprites"}
MASK = (1 << 64) - 1


def split_mix(x: int) -> int:
    """The finalizer of Steele, Lea & Flood 2014, fig. 14, in Python's integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_bytes_of_rows_are_those_of_pythons_integers():
    rows, seed, step = torch.tensor([0, 3, 700_000]), 1234567890123456789, 0x9E3779B97F4A7C15
    found = bytes_of_rows(rows, (3, 2, 2), seed)
    assert found.shape == (3, 3, 2, 2)
    for row, values in zip(rows.tolist(), found.flatten(1).tolist(), strict=True):
        begin = split_mix((row * step + seed) & MASK)
        assert values == [split_mix((begin + place * step) & MASK) >> 56 for place in range(12)]


def test_bytes_of_rows_are_uniform_and_of_neighbours_not_related():
    found = bytes_of_rows(torch.arange(2000), (3, 8, 8), 5).flatten(1)
    assert chisquare(found.flatten().bincount(minlength=256)).pvalue > 1e-3
    centered = found.double() - 127.5
    for one, other in ((centered[1:], centered[:-1]), (centered[:, 1:], centered[:, :-1])):
        correlation = (one * other).mean() / centered.square().mean()
        assert abs(float(correlation)) < 4.5 / one.numel() ** 0.5


@pytest.mark.parametrize("rows", [None, torch.arange(3000)])
def test_a_colour_for_each_image_leaves_black_as_it_is(rows):
    x = BITS[:1].expand(3000, -1, -1, -1)
    torch.manual_seed(0)
    found = with_nuisance(x, "color", rows, "test")
    assert (found.shape, found.dtype) == ((3000, 3, 6, 8), torch.uint8)
    white = BITS[0, 0] == 1
    assert found[:, :, ~white].max() == 0
    colors = found[:, :, white]  # (B, 3, pixels)
    assert torch.equal(colors.amin(-1), colors.amax(-1))
    for channel in colors[:, :, 0].unbind(1):
        counts = channel.long().bincount(minlength=256)
        assert counts[:128].sum() == 0
        assert chisquare(counts[128:]).pvalue > 1e-3
    assert abs(float(torch.corrcoef(colors[:, :2, 0].double().mT)[0, 1])) < 4.5 / 3000**0.5


@pytest.mark.parametrize("rows", [None, torch.arange(500)])
def test_noise_leaves_white_as_it_is(rows):
    x = BITS[:1].expand(500, -1, -1, -1)
    torch.manual_seed(0)
    found = with_nuisance(x, "noise", rows, "test")
    assert found.shape == (500, 3, 6, 8)
    white = BITS[0, 0] == 1
    assert found[:, :, white].min() == 255
    assert chisquare(found[:, :, ~white].long().flatten().bincount(minlength=256)).pvalue > 1e-3


@pytest.mark.parametrize("nuisance", ["color", "noise"])
def test_training_rows_are_drawn_anew_and_others_are_functions_of_their_number(nuisance):
    index = torch.tensor([3, 39, 0, 3])
    drawn = ImageSplit(BITS, None, scale=1, nuisance=nuisance)
    torch.manual_seed(0)
    first, second = drawn.materialize(index).x, drawn.materialize(index).x
    torch.manual_seed(0)
    assert torch.equal(drawn.materialize(index).x, first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[3])  # the same row twice in a batch: two draws
    kept = ImageSplit(BITS, None, scale=1, nuisance=nuisance, purpose="test")
    x = kept.materialize(index).x
    assert torch.equal(x[0], x[3])
    assert torch.equal(x, kept.materialize(torch.arange(40)).x[index])
    other = ImageSplit(BITS, None, scale=1, nuisance=nuisance, purpose="validation")
    assert not torch.equal(x, other.materialize(index).x)
    levels = x * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert x.amax() <= 1


def test_sprites_in_colour(digits):
    """The factors, the rows and their order are those without; other binarized images do as well."""
    data, plain = (digits(name="sprites", source=SPRITES, nuisance=nuisance) for nuisance in ("color", "none"))
    assert (data.spec.shape, data.spec.kind) == ((3, 32, 32), "levels")
    assert (plain.spec.shape, plain.spec.kind) == ((1, 32, 32), "binary")
    for split in ("train", "trained", "validation", "test"):
        index = torch.arange(20)
        shown, bits = data.materialize(index, split), plain.materialize(index, split)
        assert torch.equal(shown.y, bits.y)
        assert torch.equal((shown.x > 0).float(), bits.x.expand(-1, 3, -1, -1))
        assert torch.equal(shown.x, data.materialize(index, split).x) == (split != "train")
    numbers = digits(binarize="dynamic", nuisance="noise", batch_size=3)
    assert numbers.materialize(torch.arange(3), "train").x.shape == (3, 3, 8, 8)


def test_pairs_have_nuisances_of_their_own(digits):
    data = digits(name="sprites", source=SPRITES, nuisance="color", pairs=1)
    batch = data.materialize(torch.arange(50), "train")
    colors = [each.flatten(2).amax(2) for each in (batch.x, batch.partner)]
    assert (colors[0] != colors[1]).any(1).all()


def test_grey_levels_have_none(digits):
    message = r"^nuisance must be 'none' for digits, whose rows are not images in black and white, got 'color'"
    with pytest.raises(ValueError, match=message):
        digits(nuisance="color")
