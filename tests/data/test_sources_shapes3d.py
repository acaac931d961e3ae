"""3D Shapes from a small file of the same form: images and factors stay together; damage, and no h5py, in one line."""

import hashlib
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.files import DataFile
from attelbo.data.sources import Factor, Shapes3D, shapes3d
from attelbo.errors import DataError

SIZES = (2, 1, 2, 3, 2, 2)
SIZE = int(np.prod(SIZES))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Writes 48 images of six factors, of which the values are as in the published file; gives the folder."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads the file, is not installed")
    names = [factor.name for factor in Shapes3D.factors]
    monkeypatch.setattr(Shapes3D, "factors", tuple(map(Factor, names, SIZES)))
    values = [np.linspace(-30, 30, n) if n > 1 else np.zeros(1) for n in SIZES]
    arrays = {
        "images": np.random.default_rng(0).integers(0, 256, (SIZE, 64, 64, 3), dtype=np.uint8),
        "labels": np.array(list(product(*values))),
    }

    def write(**changed: np.ndarray) -> Path:
        path = tmp_path / shapes3d.FILE.path
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            for name, array in (arrays | changed).items():
                file.create_dataset(name, data=array, compression="gzip", chunks=(5, *array.shape[1:]))
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setattr(shapes3d, "FILE", DataFile(shapes3d.FILE.path, digest))
        return tmp_path

    return write, arrays["images"]


@pytest.mark.parametrize("at_once", [7, 4096])
def test_images_and_factors_stay_together(small, monkeypatch, at_once):
    write, images = small
    monkeypatch.setattr(shapes3d, "_ROWS_AT_ONCE", at_once)
    train, test = Shapes3D(test_size=8).load(write())
    assert (train.x.shape, test.x.shape) == ((40, 3, 64, 64), (8, 3, 64, 64))
    row_of = {image.tobytes(): row for row, image in enumerate(images)}
    grid = list(product(*map(range, SIZES)))
    seen = []
    for x, y in zip(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]), strict=True):
        seen.append(row_of[x.permute(1, 2, 0).contiguous().numpy().tobytes()])
        assert tuple(y.tolist()) == grid[seen[-1]]
    assert sorted(seen) == list(range(SIZE))
    assert seen != sorted(seen)
    assert torch.equal(Shapes3D(test_size=8).load(write()).test.y, test.y)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.zeros((SIZE, 64, 64, 1), np.uint8)}, "images is uint8 of shape"),
        ({"images": np.zeros((SIZE - 1, 64, 64, 3), np.uint8)}, "images is uint8 of shape"),
        ({"images": np.zeros((SIZE, 64, 64, 3), np.float32)}, "images is float32"),
        ({"labels": np.zeros((SIZE, 6))}, r"labels has \[1, 1, 1, 1, 1, 1\] values"),
    ],
)
def test_damage(small, changed, message):
    write, _ = small
    with pytest.raises(DataError, match=message):
        Shapes3D(test_size=8).load(write(**changed))


def test_truncated_missing_or_too_small(small, monkeypatch, no_network):
    write, _ = small
    root = write()
    with pytest.raises(DataError, match="48 images leave none for training beside 48 to test"):
        Shapes3D(test_size=48).load(root)
    path = root / shapes3d.FILE.path
    path.write_bytes(content := path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        Shapes3D().load(root)
    monkeypatch.setattr(shapes3d, "FILE", DataFile(shapes3d.FILE.path, hashlib.md5(content).hexdigest()))
    with pytest.raises(DataError, match="is damaged: not the 3D Shapes file"):
        Shapes3D().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^Shapes3D: missing in .*3dshapes.h5 \(MD5 .*no route to host"):
        Shapes3D().prepare(root)


def test_nothing_is_downloaded_that_could_not_be_read(tmp_path, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"^Shapes3D: the file is HDF5.*: pip install h5py"):
        Shapes3D().prepare(tmp_path)


def test_test_size_out_of_range():
    with pytest.raises(ValueError, match=r"^test_size must be at least 1, got 0"):
        Shapes3D(test_size=0)
