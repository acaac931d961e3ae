"""Cars3D from a small archive of MATLAB files: which image has which factors, whatever their order; damage."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from attelbo.data.files import DataFile
from attelbo.data.sources import Cars3D, Factor, cars3d
from attelbo.errors import DataError

VIEWS = (2, 3)
"""Elevations, azimuths."""
CARS = {"car_010_mesh": 1, "car_002_mesh": 0, "car_100_mesh": 2}
"""In the order of the archive; the number is that of the name."""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Writes three cars, and more that the archive holds; gives the folder."""
    sizes = (*VIEWS, len(CARS))
    factors = [Factor(factor.name, n) for factor, n in zip(Cars3D.factors, sizes, strict=True)]
    monkeypatch.setattr(Cars3D, "factors", tuple(factors))
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (128, 128, 3, *VIEWS[::-1]), dtype=np.uint8) for name in CARS}

    def write(**changed: np.ndarray | bytes) -> Path:
        path = tmp_path / cars3d.FILE.path
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:

            def add(name: str, content: bytes) -> None:
                (member := tarfile.TarInfo(name)).size = len(content)
                archive.addfile(member, io.BytesIO(content))

            add("data/shapes48.mat", b"of another data set")
            add("data/cars/list.txt", b"car_002_mesh\n")
            for name in CARS:
                given = changed.get(name, images[name])
                stream = io.BytesIO()
                savemat(stream, {"im": given, "mask": np.zeros(1)} if isinstance(given, np.ndarray) else {"x": 1})
                add(f"data/cars/{name}.mat", given if isinstance(given, bytes) else stream.getvalue())
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setattr(cars3d, "FILE", DataFile(cars3d.FILE.path, digest))
        return tmp_path

    return write, images


@pytest.mark.parametrize("size", [128, 64])
def test_images_and_factors_stay_together(small, size):
    write, images = small
    train, test = Cars3D(size, test_size=4).load(write())
    assert (train.x.shape, test.x.shape) == ((14, 3, size, size), (4, 3, size, size))
    name_of = {number: name for name, number in CARS.items()}
    x, y = torch.cat([train.x, test.x]), torch.cat([train.y, test.y])
    assert len(y.unique(dim=0)) == 18
    for ours, (elevation, azimuth, car) in zip(x, y.tolist(), strict=True):
        picture = Image.fromarray(images[name_of[car]][..., azimuth, elevation])
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(picture))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (np.zeros((128, 128, 3, 3, 1), np.uint8), r"car_002_mesh.mat has views \(1, 3\)"),
        (np.zeros((64, 64, 3, 3, 2), np.uint8), "im is uint8 of shape"),
        (np.zeros((128, 128, 3, 3, 2)), "im is float64 of shape"),
        (b"no MATLAB file, of some length " * 9, "not the Cars3D archive"),
    ],
)
def test_damage(small, changed, message):
    write, _ = small
    with pytest.raises(DataError, match=message):
        Cars3D(test_size=4).load(write(car_002_mesh=changed))


def test_truncated_missing_or_too_small(small, monkeypatch, no_network):
    write, _ = small
    root = write()
    with pytest.raises(DataError, match="18 images leave none for training beside 18 to test"):
        Cars3D(test_size=18).load(root)
    monkeypatch.setattr(Cars3D, "factors", (*Cars3D.factors[:2], Factor("car", 4)))
    with pytest.raises(DataError, match="3 cars, not 4"):
        Cars3D(test_size=4).load(root)
    path = root / cars3d.FILE.path
    path.write_bytes(content := path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        Cars3D().load(root)
    monkeypatch.setattr(cars3d, "FILE", DataFile(cars3d.FILE.path, hashlib.md5(content).hexdigest()))
    with pytest.raises(DataError, match="is damaged: not the Cars3D archive"):
        Cars3D().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^Cars3D: missing in .*data\.tar\.gz \(MD5 .*no route to host"):
        Cars3D().prepare(root)


def test_numbers_out_of_range():
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0"):
        Cars3D(size=0)
    with pytest.raises(ValueError, match=r"^test_size must be at least 1, got 0"):
        Cars3D(test_size=0)
