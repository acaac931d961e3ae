"""Scenes of several digits: each digit is one of the data set's, whole, apart from the others, and told apart."""

import colorsys
from pathlib import Path

import pytest
import torch

from attelbo.data.sources import Digits, Images, MultiDigits
from attelbo.data.sources.multi_digits import INK, bright_colors
from attelbo.errors import ConfigError

DIGITS = {"_target_": "attelbo.data.sources.Digits"}


def scenes(**options) -> Images:
    return MultiDigits(DIGITS, **{"n_train": 300, "n_test": 1, **options}).load(Path("nowhere")).train


def test_segments_are_digits_of_the_training_images():
    """Each segment's box is found, pixel for pixel, among the training digits' boxes, and nothing is left over."""
    x, y, segments = scenes(size=24, most=3)
    assert segments is not None

    def inked(image):
        rows, columns = (image >= INK).nonzero(as_tuple=True)
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return box.shape, bytes((box * (box >= INK)).flatten().tolist())

    known = {inked(image) for image in Digits().load(Path("nowhere")).train.x[:, 0]}
    for image, count, segment in zip(x[:, 0], y.tolist(), segments, strict=True):
        assert segment.unique().tolist() == list(range(-1, count))
        assert torch.equal(segment >= 0, image >= INK)
        for k in range(count):
            assert inked(image * (segment == k)) in known


def test_colored_scenes_are_the_grey_ones_with_a_color_for_each_digit():
    grey, colored = scenes(most=3), scenes(most=3, colored=True)
    assert colored.x.shape == (300, 3, 24, 24)
    assert torch.equal(colored.y, grey.y)
    assert torch.equal(colored.segments, grey.segments)
    assert torch.equal(colored.x.amax(1, keepdim=True), grey.x)  # one of red, green and blue is full
    for image, ink, segment in zip(colored.x.double(), grey.x.double(), colored.segments, strict=True):
        for k in range(segment.max() + 1):
            shades = (image / ink)[:, segment == k]
            assert (shades.amax(1) - shades.amin(1)).max() < 1.01 / INK  # rounding of bytes
            assert shades.mean(1).amin() == 0


def test_bright_colors_are_those_of_the_color_circle():
    hues = torch.rand(50, dtype=torch.float64)
    expected = [colorsys.hsv_to_rgb(hue, 1, 1) for hue in hues.tolist()]
    torch.testing.assert_close(bright_colors(hues), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_each_number_of_digits_is_equally_likely():
    _, y, _ = scenes(n_train=6000, fewest=1, most=3, size=32)
    share = y.bincount(minlength=4) / len(y)
    assert share[0] == 0
    assert ((share[1:] - 1 / 3).abs() < 4 * (2 / 9 / len(y)) ** 0.5).all()  # crowded scenes are not drawn less often


def test_places_are_uniform():
    """Of single digits: the mean position of the ink is the canvas' middle, moved by the digits' own."""
    x, y, _ = scenes(n_train=4000, fewest=1, most=1, size=16)
    assert (y == 1).all()
    glyphs = Digits().load(Path("nowhere")).train.x
    for dim in (2, 3):
        found, own = (_center(images, dim) for images in (x, glyphs))
        # 9 places along each side: a variance of (9^2 - 1) / 12, beside that of the digits.
        error = (((81 - 1) / 12 + own.var()) / len(x)) ** 0.5
        assert float(found.mean()) == pytest.approx(float(own.mean()) + 4, abs=4 * float(error))
        assert float(found.var() - own.var()) == pytest.approx(80 / 12, rel=0.1)


def _center(images, dim):
    mass = images.double().sum((1, 2, 3))
    shape = [1, 1, 1, 1]
    shape[dim] = -1
    return (images * torch.arange(images.shape[dim]).view(shape)).double().sum((1, 2, 3)) / mass


def test_segments_come_with_what_is_evaluated_and_with_nothing_else(digits):
    source = {"_target_": "attelbo.data.sources.MultiDigits", "digits": DIGITS, "n_train": 60, "n_test": 20}
    data = digits(name="scenes", source=source, validation_size=10, binarize="threshold")
    assert (data.spec.shape, data.spec.n_classes, data.spec.n_objects) == ((1, 24, 24), 3, 2)
    for split in ("validation", "test"):
        batch = data.materialize(torch.tensor([3, 1]), split)
        assert batch.segments.dtype == torch.int64
        assert torch.equal(batch.segments >= 0, batch.x[:, 0] == 1)
        assert torch.equal(batch.segments.flatten(1).amax(1) + 1, batch.y)
    assert data.materialize(torch.tensor([3, 1]), "train").segments is None


def test_the_scenes_are_fixed_and_pinned(digits):
    """A change of these sums means that results of an earlier version no longer compare."""
    source = {"_target_": "attelbo.data.sources.MultiDigits", "digits": DIGITS, "n_train": 20, "n_test": 10}
    assert digits(name="scenes", source=source, validation_size=10).checksums()["test"][:12] == "eed72868156d"


def test_too_little_room():
    with pytest.raises(ConfigError, match=r"^data\.source: a canvas of 8 x 8 has no room for 4 digits"):
        scenes(size=8, most=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, r"^size must be at least 8, that of a digit, got 7"),
        ({"fewest": 3}, r"^fewest must be in 0\.\.most and most at least 1, got 3 and 2"),
        ({"fewest": 0, "most": 0}, r"^fewest must be in 0\.\.most and most at least 1, got 0 and 0"),
        ({"n_test": 0}, r"^n_test must be at least 1, got 0"),
        ({"digits": {"_target_": "attelbo.data.sources.CIFAR10"}}, r"^digits must be grey images, got CIFAR10"),
    ],
)
def test_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MultiDigits(**{"digits": DIGITS, **options})
