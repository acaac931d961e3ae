"""A batch from the resident tensor against the same rows taken one by one."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from attelbo.data.resident import ImageSplit, unpack_bits


@pytest.fixture
def x():
    return torch.randint(0, 256, (40, 3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y():
    return torch.arange(40) % 7


INDEX = torch.tensor([3, 39, 0, 3, 17])


def test_grey_levels_equal_a_slow_reference(x, y):
    batch = ImageSplit(x, y).materialize(INDEX)
    expected = torch.stack([torch.from_numpy(x[row].numpy().astype(np.float32) / np.float32(255)) for row in INDEX])
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, expected)
    assert batch.y.tolist() == [int(y[row]) for row in INDEX]
    assert torch.equal(batch.index, INDEX)


def test_bits_are_zero_and_one(x):
    bits = (x > 100).to(torch.uint8)
    batch = ImageSplit(bits, None, scale=1).materialize(INDEX)
    assert torch.equal(batch.x, bits[INDEX].float())
    assert batch.y is None


def test_packed_bits_equal_unpacked_ones(x, y):
    bits = (x > 100).to(torch.uint8)
    packed = torch.from_numpy(np.packbits(bits.numpy(), axis=-1))
    assert packed.shape == (40, 3, 6, 1)
    assert torch.equal(unpack_bits(packed), bits)
    split = ImageSplit(packed, y, scale=1, bits=True)
    assert torch.equal(split.materialize(INDEX).x, bits[INDEX].float())


def test_drawing_is_new_each_time_and_seeded(x, y):
    split = ImageSplit(x, y, draw=True)
    torch.manual_seed(0)
    first, second = split.materialize(INDEX).x, split.materialize(INDEX).x
    torch.manual_seed(0)
    assert torch.equal(split.materialize(INDEX).x, first)
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert (first[0] != first[3]).any()  # the same row twice in a batch: two draws


def test_flip_mirrors_half_of_the_images(x, y):
    index = torch.arange(40).repeat(50)
    torch.manual_seed(0)
    batch = ImageSplit(x, y, flip=True).materialize(index)
    plain = x.float().div(255)[index]
    mirrored = torch.tensor([torch.equal(image, other.flip(-1)) for image, other in zip(batch.x, plain, strict=True)])
    kept = torch.tensor([torch.equal(image, other) for image, other in zip(batch.x, plain, strict=True)])
    assert torch.equal(mirrored, ~kept)
    assert abs(mirrored.double().mean() - 0.5) < 4.5 * 0.5 / 2000**0.5


def test_crops_are_windows_of_the_padded_image_equally_often(x, y):
    """Against every window, one after the other, by torchvision's own crop."""
    from torchvision.transforms.v2.functional import crop, pad

    index = torch.arange(40).repeat(50)
    torch.manual_seed(0)
    batch = ImageSplit(x, y, crop=1).materialize(index)
    padded = pad(x, [1, 1, 1, 1]).float().div(255)
    windows = torch.stack([crop(padded, top, left, 6, 8) for top in range(3) for left in range(3)], 1)  # (N, 9, ...)
    assert windows.shape[2:] == x.shape[1:]
    found = (windows[index] == batch.x.unsqueeze(1)).flatten(2).all(-1)
    assert torch.equal(found.sum(1), torch.ones(2000, dtype=torch.int64))
    counts = found.sum(0)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    torch.manual_seed(0)
    assert torch.equal(ImageSplit(x, y, crop=1).materialize(index).x, batch.x)


def test_crops_and_flips_come_before_pixels_are_drawn(x, y):
    torch.manual_seed(0)
    assert set(ImageSplit(x, y, draw=True, flip=True, crop=2).materialize(INDEX).x.unique().tolist()) == {0.0, 1.0}


def test_checksum_tells_pixels_order_and_labels(x, y):
    checksum = ImageSplit(x, y).checksum()
    assert ImageSplit(x.clone(), y.clone()).checksum() == checksum
    changed = x.clone()
    changed[5, 1, 2, 3] ^= 1
    others = [ImageSplit(changed, y), ImageSplit(x.flip(0), y.flip(0)), ImageSplit(x, y + 1)]
    assert len({checksum, *(other.checksum() for other in others)}) == 4


def test_data_move_to_the_device_of_the_index(x, y):
    """The meta device stands for an accelerator: it has shapes but no values."""
    split = ImageSplit(x, y)
    assert split.materialize(INDEX.to("meta")).x.device.type == "meta"
    assert split.x.device.type == split.y.device.type == "meta"


@pytest.mark.parametrize(
    "options",
    [{}, {"draw": True}, {"flip": True}, {"crop": 1}, {"nuisance": "color"}, {"nuisance": "noise", "purpose": "test"}],
    ids=str,
)
def test_what_repeats_is_the_same_whenever_it_is_asked_for(options):
    bits = (torch.rand(50, 1, 6, 6) < 0.5).to(torch.uint8) * (1 if "nuisance" in options else 100)
    split, rows = ImageSplit(bits, None, **options), torch.arange(50)
    assert split.repeats == torch.equal(split.materialize(rows).x, split.materialize(rows).x)
