"""SVHN's MATLAB files, small, and against torchvision's own class; damage."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from attelbo.data.sources import SVHN
from attelbo.errors import DataError

ROWS = {"train": 12, "test": 5, "extra": 7}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Writes small files; gives the folder."""

    def write(**changed: dict[str, np.ndarray] | bytes) -> Path:
        rng = np.random.default_rng(0)
        (tmp_path / "svhn").mkdir(exist_ok=True)
        split_list = {}
        for part, n in ROWS.items():
            url, name, _ = datasets.SVHN.split_list[part]
            path = tmp_path / "svhn" / name
            arrays = {
                "X": rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8),
                "y": np.arange(n, dtype=np.uint8)[:, None] % 10 + 1,
            }
            given = changed.get(part, arrays)
            if isinstance(given, bytes):
                path.write_bytes(given)
            else:
                savemat(path, arrays | given, do_compression=True)
            split_list[part] = [url, name, hashlib.md5(path.read_bytes()).hexdigest()]
        monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
        return tmp_path

    return write


@pytest.mark.parametrize("extra", [False, True])
def test_images_and_labels_are_those_of_torchvision(small, extra):
    root = small()
    train, test = SVHN(extra).load(root)
    published = {part: datasets.SVHN(str(root / "svhn"), split=part) for part in ROWS}
    parts = ["train", "extra"] if extra else ["train"]
    assert np.array_equal(train.x.numpy(), np.concatenate([published[part].data for part in parts]))
    assert np.array_equal(train.y.numpy(), np.concatenate([published[part].labels for part in parts]))
    assert np.array_equal(test.x.numpy(), published["test"].data)
    assert np.array_equal(test.y.numpy(), published["test"].labels)
    assert train.y.dtype == torch.int64
    assert set(train.y.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros((32, 32, 5), np.uint8)}, "not a file of SVHN"),
        ({"X": np.zeros((28, 28, 3, 5), np.uint8)}, r"expected uint8 images of shape \(N, 3, 32, 32\)"),
        ({"y": np.ones((4, 1), np.uint8)}, "expected 5 integer labels"),
        (b"no MATLAB file, of some length " * 9, "not a file of SVHN"),
    ],
)
def test_damage(small, changed, message):
    with pytest.raises(DataError, match=message):
        SVHN().load(small(test=changed))


def test_truncated_or_missing(small, no_network):
    root = small()
    path = root / "svhn" / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        SVHN().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^SVHN: missing in .*: svhn/test_32x32.mat \(MD5 \w+\); .*no route to host"):
        SVHN().prepare(root)
