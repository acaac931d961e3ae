"""Small data sets in the formats of the real ones, written by the tests themselves, and the real ones where present."""

import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.image import ImageDataModule


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder with the real MNIST and Fashion-MNIST; tests that need it are skipped where there is none."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ATTELBO_DATA_DIR", default))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    return folder


@pytest.fixture
def digits() -> Callable[..., ImageDataModule]:
    """The embedded digits with the options that a test changes."""

    def make(**options: object) -> ImageDataModule:
        arguments = {
            "name": "digits",
            "source": {"_target_": "attelbo.data.sources.Digits"},
            "root": "data",
            "seed": 1,
            "batch_size": 32,
            "eval_batch_size": 50,
            "validation_size": 144,
        }
        return ImageDataModule(**(arguments | options))  # pyright: ignore[reportArgumentType]

    return make


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The idx format: two zeros, type 8 (bytes), number of dimensions, big-endian sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


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


def write_cifar_batch(path: Path, label_key: str, n: int, n_classes: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """A batch as CIFAR's authors wrote them: a pickled dictionary with rows of 3 x 32 x 32 bytes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
    labels = [int(label) for label in rng.integers(0, n_classes, n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": pixels, label_key: labels, "filenames": ["x.png"] * n}, protocol=4))
    return torch.from_numpy(pixels).view(n, 3, 32, 32), labels
