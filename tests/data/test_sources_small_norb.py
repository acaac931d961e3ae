"""small NORB from small files of its own binary form: types, factors, sizes; damage is told."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.data.sources import SmallNORB, small_norb
from attelbo.errors import DataError

PARTS = {"training": 12, "testing": 7}


def binary(array: np.ndarray) -> bytes:
    """As its authors' page describes it: fewer than three dimensions still have three sizes in the header."""
    kind = 0x1E3D4C55 if array.itemsize == 1 else 0x1E3D4C54
    sizes = [*array.shape, 1, 1][: max(array.ndim, 3)]
    return gzip.compress(struct.pack(f"<{2 + len(sizes)}I", kind, array.ndim, *sizes) + array.tobytes())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Writes the six files with 12 and 7 pairs of images; gives the folder."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name in small_norb.MD5:
        n = PARTS["training" if "training" in name else "testing"]
        if "-dat" in name:
            arrays[name] = rng.integers(0, 256, (n, 2, 96, 96), dtype=np.uint8)
        elif "-cat" in name:
            arrays[name] = rng.integers(0, 5, n).astype("<i4")
        else:
            columns = (rng.integers(0, 10, n), rng.integers(0, 9, n), 2 * rng.integers(0, 18, n), rng.integers(0, 6, n))
            arrays[name] = np.stack(columns, 1).astype("<i4")

    def write(**changed: np.ndarray | bytes) -> Path:
        (tmp_path / small_norb.FOLDER).mkdir(exist_ok=True)
        for name, array in arrays.items():
            array = changed.get(name.split("-")[-1].partition(".")[0], array)
            content = array if isinstance(array, bytes) else binary(array)
            (tmp_path / small_norb.FOLDER / name).write_bytes(content)
            monkeypatch.setitem(small_norb.MD5, name, hashlib.md5(content).hexdigest())
        return tmp_path

    return write, arrays


def of(arrays, part, kind):
    return next(array for name, array in arrays.items() if part in name and f"-{kind}." in name)


@pytest.mark.parametrize("size", [96, 64])
def test_images_and_factors_are_those_of_the_files(small, size):
    write, arrays = small
    for part, images in zip(PARTS, SmallNORB(size).load(write()), strict=True):
        assert images.x.shape == (PARTS[part], 1, size, size)
        category, others = of(arrays, part, "cat"), of(arrays, part, "info")
        expected = np.stack([category, others[:, 1], others[:, 2] / 2, others[:, 3]], 1)
        assert np.array_equal(images.y.numpy(), expected)
        for x, (left, _) in zip(images.x, of(arrays, part, "dat"), strict=True):
            picture = Image.fromarray(left)
            picture.thumbnail((size, size), Image.Resampling.LANCZOS)
            assert np.array_equal(x[0].numpy(), np.asarray(picture))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dat": np.zeros((12, 96, 96), np.uint8)}, "do not go together"),
        ({"cat": np.zeros(3, "<i4")}, "do not go together"),
        ({"cat": np.full(12, 5, "<i4")}, "values of factors that there are not"),
        ({"info": np.ones((12, 4), "<i4")}, "values of factors that there are not"),
        ({"dat": gzip.compress(b"")}, "no header of a matrix"),
        ({"dat": gzip.compress(bytes(40))}, "no header of a matrix"),
        ({"dat": gzip.compress(b"short")}, "no header of a matrix"),
        ({"dat": gzip.compress(struct.pack("<6I", 0x1E3D4C55, 4, 12, 2, 96, 96) + b"x")}, "its header promises"),
        ({"dat": b"no gzip"}, "not a whole gzip file"),
        ({"dat": gzip.compress(bytes(400))[:-9]}, "not a whole gzip file"),
    ],
)
def test_damage(small, changed, message):
    write, _ = small
    with pytest.raises(DataError, match=message):
        SmallNORB().load(write(**changed))


def test_truncated_or_missing(small, no_network):
    write, _ = small
    root = write()
    path = root / small_norb.FOLDER / next(iter(small_norb.MD5))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        SmallNORB().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^SmallNORB: missing in .*-training-dat.*no route to host"):
        SmallNORB().prepare(root)


def test_size_out_of_range():
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0"):
        SmallNORB(size=0)
    assert SmallNORB().shape == (1, 64, 64)
    assert torch.tensor([factor.n_values for factor in SmallNORB.factors]).prod() == 24_300 // 5
