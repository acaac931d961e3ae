"""MPI3D from a small archive of the same form: images and factors stay together, damage is told."""

import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.sources import MPI3D, Factor, mpi3d
from attelbo.errors import DataError

SIZES = (2, 1, 2, 1, 3, 2, 2)
SIZE = int(np.prod(SIZES))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Writes 48 images of seven factors; gives the folder."""
    names = [factor.name for factor in MPI3D.factors]
    monkeypatch.setattr(MPI3D, "factors", tuple(map(Factor, names, SIZES)))
    images = np.random.default_rng(0).integers(0, 256, (SIZE, 64, 64, 3), dtype=np.uint8)

    def write(images: np.ndarray = images) -> Path:
        path = tmp_path / "mpi3d" / "mpi3d_real.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, images=images)
        return path

    return write, images


@pytest.mark.parametrize("at_once", [7, 4096])
def test_images_and_factors_stay_together(small, monkeypatch, at_once):
    write, images = small
    monkeypatch.setattr(mpi3d, "_ROWS_AT_ONCE", at_once)
    train, test = MPI3D("real", test_size=8).load(write().parents[1])
    assert (train.x.shape, test.x.shape) == ((40, 3, 64, 64), (8, 3, 64, 64))
    row_of = {image.tobytes(): row for row, image in enumerate(images)}
    grid = list(product(*map(range, SIZES)))
    seen = []
    for x, y in zip(torch.cat([train.x, test.x]), torch.cat([train.y, test.y]), strict=True):
        seen.append(row_of[x.permute(1, 2, 0).contiguous().numpy().tobytes()])
        assert tuple(y.tolist()) == grid[seen[-1]]
    assert sorted(seen) == list(range(SIZE))
    assert seen != sorted(seen)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((SIZE, 64, 64), np.uint8), "images is uint8 of shape"),
        (np.zeros((SIZE - 1, 64, 64, 3), np.uint8), "images has 47 rows, not 48"),
        (np.zeros((SIZE, 64, 64, 3), np.int16), "images is int16"),
        (np.asfortranarray(np.zeros((SIZE, 64, 64, 3), np.uint8)), "in Fortran order"),
        (np.array([{}]), "images is object"),
    ],
)
def test_another_array(small, images, message):
    write, _ = small
    with pytest.raises(DataError, match=rf"^/.*mpi3d_real\.npz is damaged: not the MPI3D archive .*{message}"):
        MPI3D("real", test_size=8).load(write(images).parents[1])


def test_a_byte_that_changed_is_found(small):
    """By the archive's own CRC-32 sum, at the end of its rows."""
    write, _ = small
    path = write()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged: .*BadZipFile: Bad CRC-32"):
        MPI3D("real", test_size=8).load(path.parents[1])


def test_truncated_cut_off_or_missing(small, no_network):
    write, images = small
    path = write()
    root = path.parents[1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: not the MPI3D archive"):
        MPI3D("real", test_size=8).load(root)
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(images))
        stream.write(images[:-1].tobytes())
    with pytest.raises(DataError, match="images is cut off"):
        MPI3D("real", test_size=8).load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^MPI3D: missing in .*mpi3d_real.npz; downloading failed .*no route to host"):
        MPI3D("real").prepare(root)


def test_too_many_or_no_rows_to_test_on(small):
    write, _ = small
    with pytest.raises(DataError, match="48 images leave none for training beside 48 to test"):
        MPI3D("real", test_size=48).load(write().parents[1])
    with pytest.raises(ValueError, match=r"^test_size must be at least 1, got 0"):
        MPI3D("toy", test_size=0)
