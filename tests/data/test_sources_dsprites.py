"""The dSprites archive: packed as it is read, nothing pickled opened, damage told."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.files import DataFile
from attelbo.data.sources import DSprites, dsprites
from attelbo.errors import DataError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def small_dsprites(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = {
        "imgs": rng.integers(0, 2, (50, 64, 64), dtype=np.uint8),
        "latents_classes": rng.integers(0, 3, (50, 6)),
        "metadata": np.array({"pickled": True}, dtype=object),
    }

    def write(**changed: np.ndarray) -> Path:
        path = tmp_path / dsprites.FILE.path
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, **(arrays | changed))
        monkeypatch.setattr(dsprites, "FILE", DataFile(dsprites.FILE.path, md5(path.read_bytes())))
        return tmp_path

    return write, arrays


def test_dsprites_packs_its_bits(small_dsprites, monkeypatch):
    write, arrays = small_dsprites
    monkeypatch.setattr(dsprites, "_ROWS_AT_ONCE", 7)
    train, test = DSprites(test_size=8).load(write())
    assert (train.x.shape, test.x.shape) == ((42, 1, 64, 8), (8, 1, 64, 8))
    ours = torch.cat([train.x, test.x]).numpy()
    factors = torch.cat([train.y, test.y]).numpy()
    rows = {np.packbits(image).tobytes(): row for row, image in enumerate(arrays["imgs"])}
    order = [rows[image.tobytes()] for image in ours]
    assert sorted(order) == list(range(50))
    assert np.array_equal(factors, arrays["latents_classes"][order])


def test_dsprites_as_a_data_module(small_dsprites, digits):
    write, arrays = small_dsprites
    data = digits(
        name="dsprites",
        source={"_target_": "attelbo.data.sources.DSprites", "test_size": 8},
        root=str(write()),
        validation_size=5,
        train_size=None,
    )
    assert (data.spec.kind, data.spec.shape, data.spec.n_classes) == ("binary", (1, 64, 64), None)
    batch = data.materialize(torch.arange(37), "train")
    assert (batch.x.shape, batch.y.shape) == ((37, 1, 64, 64), (37, 6))
    originals = {image.tobytes() for image in arrays["imgs"].astype(np.float32)}
    assert all(image.numpy().tobytes() in originals for image in batch.x)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"imgs": np.zeros((50, 64, 32), np.uint8)}, "imgs is uint8 of shape"),
        ({"imgs": np.zeros((50, 64, 64), np.float32)}, "imgs is float32"),
        ({"imgs": np.full((50, 64, 64), 2, np.uint8)}, "other than 0 and 1"),
        ({"imgs": np.array([{}])}, "imgs is object"),
        ({"latents_classes": np.zeros((49, 6), np.int64)}, "expected 50 integer labels"),
        ({"latents_classes": np.array([{}])}, "not the dSprites archive"),
    ],
)
def test_dsprites_damage(small_dsprites, changed, message):
    write, _ = small_dsprites
    with pytest.raises(DataError, match=message):
        DSprites(test_size=8).load(write(**changed))


def test_dsprites_truncated_or_missing(small_dsprites, no_network):
    write, _ = small_dsprites
    root = write()
    path = root / dsprites.FILE.path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        DSprites().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^DSprites: missing in .*npz \(MD5 .*no route to host"):
        DSprites().prepare(root)


def test_dsprites_too_few_rows(small_dsprites):
    write, _ = small_dsprites
    with pytest.raises(DataError, match="leave none for training"):
        DSprites(test_size=50).load(write())


def test_test_size_out_of_range():
    with pytest.raises(ValueError, match=r"^test_size must be at least 1, got 0"):
        DSprites(test_size=0)
