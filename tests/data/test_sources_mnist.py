"""The idx files of the MNIST family, and what is told about files that are missing or damaged."""

import errno
import gzip
import hashlib
import re
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.sources import MNIST
from attelbo.errors import DataError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The idx format: two zeros, type 8 (bytes), number of dimensions, big-endian sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def folder_state(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class SmallMNIST:
    """30 + 10 random images in MNIST's files, with torchvision's table of sums patched to match."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision import datasets

        rng = np.random.default_rng(0)
        self.root = root
        self.raw = root / "MNIST" / "raw"
        self.raw.mkdir(parents=True)
        self.train_x = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
        self.train_y = rng.integers(0, 10, 30, dtype=np.uint8)
        self.test_x = rng.integers(0, 256, (10, 28, 28), dtype=np.uint8)
        self.test_y = rng.integers(0, 10, 10, dtype=np.uint8)
        names = [name for name, _ in datasets.MNIST.resources]
        arrays = (self.train_x, self.train_y, self.test_x, self.test_y)
        resources = []
        for name, array in zip(names, arrays, strict=True):
            content = gzip.compress(idx(array), mtime=0)
            (self.raw / name).write_bytes(content)
            resources.append((name, md5(content)))
        monkeypatch.setattr(datasets.MNIST, "resources", resources)


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallMNIST:
    return SmallMNIST(tmp_path, monkeypatch)


def test_mnist_from_gzip_files(small_mnist: SmallMNIST):
    train, test = MNIST().load(small_mnist.root)
    assert np.array_equal(train.x.squeeze(1), small_mnist.train_x)
    assert np.array_equal(train.y, small_mnist.train_y)
    assert np.array_equal(test.x.squeeze(1), small_mnist.test_x)
    assert np.array_equal(test.y, small_mnist.test_y)
    assert train.y.dtype == torch.int64


def test_mnist_from_extracted_files(small_mnist: SmallMNIST):
    expected = MNIST().load(small_mnist.root)
    for path in list(small_mnist.raw.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert MNIST().missing(small_mnist.root) == []
    for ours, theirs in zip(MNIST().load(small_mnist.root), expected, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)


def test_wrong_checksum(small_mnist: SmallMNIST, no_network):
    path = small_mnist.raw / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    before = folder_state(small_mnist.root)
    source = MNIST()
    source.prepare(small_mnist.root)  # nothing is missing, so nothing is downloaded over it
    sums = f"its MD5 sum is {md5(bytes(content))}, published is {_sum(path.name)}"
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} is damaged: {sums}"):
        source.load(small_mnist.root)
    assert folder_state(small_mnist.root) == before


def test_truncated_gzip(small_mnist: SmallMNIST):
    path = small_mnist.raw / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is damaged: its MD5 sum .*\(500 bytes\)"):
        MNIST().load(small_mnist.root)


def test_truncated_gzip_with_a_right_sum(small_mnist: SmallMNIST, monkeypatch):
    """The table would have to be wrong: the reader still does not fall over."""
    path = small_mnist.raw / "t10k-images-idx3-ubyte.gz"
    content = path.read_bytes()[:500]
    path.write_bytes(content)
    _patch_sum(monkeypatch, path.name, content)
    with pytest.raises(DataError, match="not a whole gzip file"):
        MNIST().load(small_mnist.root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(np.zeros((10, 28, 28)))[:-5], r"its header promises 7,856 bytes, it has 7,851"),
        (idx(np.zeros((10, 28, 28))) + b"x", r"its header promises 7,856 bytes, it has 7,857"),
        (idx(np.zeros((10, 27, 28))), r"expected uint8 images of shape \(N, 1, 28, 28\), got uint8 .*27, 28"),
        (idx(np.zeros((0, 28, 28))), r"expected uint8 images"),
        (idx(np.zeros((9, 28, 28))), r"expected 9 integer labels, got int64 of shape \(10,\)"),
        (b"\0\0\x0d\1" + struct.pack(">If", 1, 0.5), "no idx header"),
        (b"\0\0", "no idx header"),
        (b"", "no idx header"),
        (b"<html>not found</html>", "no idx header"),
        (b"\0\0\x08\x03\0\0", "cut off in its header, after 6 bytes"),
    ],
)
def test_extracted_files_of_wrong_size_or_shape(small_mnist: SmallMNIST, content, message):
    path = small_mnist.raw / "t10k-images-idx3-ubyte.gz"
    path.unlink()
    path.with_suffix("").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        MNIST().load(small_mnist.root)
    assert str(path.with_suffix("")) in str(caught.value)
    assert path.with_suffix("").read_bytes() == content


def test_labels_out_of_range(small_mnist: SmallMNIST):
    path = small_mnist.raw / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    path.with_suffix("").write_bytes(idx(np.full(10, 10)))
    with pytest.raises(DataError, match=r"expected labels in 0\.\.9, got 10\.\.10"):
        MNIST().load(small_mnist.root)


def test_missing_and_no_network(small_mnist: SmallMNIST, no_network):
    gone = small_mnist.raw / "t10k-labels-idx1-ubyte.gz"
    gone.unlink()
    before = folder_state(small_mnist.root)
    with pytest.raises(DataError) as caught:
        MNIST().prepare(small_mnist.root)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"MNIST: missing in {small_mnist.root}: MNIST/raw/{gone.name} (MD5 {_sum(gone.name)}); ")
    assert "no route to host" in line
    assert "data=digits" in line
    assert "train-images" not in line.partition(";")[0]  # only what is missing is listed
    assert folder_state(small_mnist.root) == before
    assert not [path for path in small_mnist.root.iterdir() if path.name.startswith(".download")]


def test_missing_without_a_download(tmp_path):
    with pytest.raises(DataError, match=r"^MNIST: missing in .*train-images.*nothing was downloaded"):
        MNIST().load(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DataError, match=r"^MNIST: missing in .*Read-only file system.*data=digits"):
        MNIST().prepare(tmp_path)


def test_download_adds_only_what_is_missing(small_mnist: SmallMNIST, monkeypatch):
    """The network is replaced by a folder; torchvision's own code does the rest."""
    served = {path.name: path.read_bytes() for path in small_mnist.raw.iterdir()}
    asked = _serve(monkeypatch, served)
    gone, kept = small_mnist.raw / "train-labels-idx1-ubyte.gz", small_mnist.raw / "train-images-idx3-ubyte.gz"
    gone.unlink()
    written = kept.stat().st_mtime_ns
    MNIST().prepare(small_mnist.root)
    assert gone.name in asked
    assert gone.read_bytes() == served[gone.name]
    assert kept.stat().st_mtime_ns == written
    assert np.array_equal(MNIST().load(small_mnist.root).train.y, small_mnist.train_y)
    assert [path.name for path in small_mnist.root.iterdir()] == ["MNIST"]
    asked.clear()
    MNIST().prepare(small_mnist.root)
    assert asked == []


def test_download_with_a_wrong_checksum_leaves_nothing(small_mnist: SmallMNIST, monkeypatch):
    served = {path.name: path.read_bytes() + b"!" for path in small_mnist.raw.iterdir()}
    _serve(monkeypatch, served)
    (small_mnist.raw / "train-labels-idx1-ubyte.gz").unlink()
    before = folder_state(small_mnist.root)
    with pytest.raises(DataError, match="downloading failed"):
        MNIST().prepare(small_mnist.root)
    assert folder_state(small_mnist.root) == before


def _resources() -> list[tuple[str, str]]:
    from torchvision import datasets

    return datasets.MNIST.resources


def _sum(name: str) -> str:
    return dict(_resources())[name]


def _patch_sum(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    from torchvision import datasets

    changed = [(file, md5(content) if file == name else sum_) for file, sum_ in _resources()]
    monkeypatch.setattr(datasets.MNIST, "resources", changed)


def _serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> list[str]:
    """Answer torchvision's downloads from ``files``; returns the list of names that were asked for."""
    asked: list[str] = []

    def retrieve(url: str, filename: str) -> None:
        name = url.rpartition("/")[2]
        asked.append(name)
        Path(filename).write_bytes(files[name])

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", retrieve)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    return asked
