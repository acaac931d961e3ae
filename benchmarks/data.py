"""MNIST, or random images in its files' place: the arithmetic takes the same time."""

from pathlib import Path

import numpy as np

RAW = Path("MNIST", "raw")
N_TRAIN, N_TEST = 60_000, 10_000


def has_mnist(folder: Path) -> bool:
    """Whether a data folder holds MNIST's training images, packed or extracted."""
    return any((folder / RAW / f"train-images-idx3-ubyte{suffix}").is_file() for suffix in ("", ".gz"))


def write_random_mnist(folder: Path, n_train: int = N_TRAIN, n_test: int = N_TEST) -> None:
    """Write MNIST's four extracted files below a folder, with random bytes and labels."""
    (folder / RAW).mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, n in (("train", n_train), ("t10k", n_test)):
        _write_idx(folder / RAW / f"{part}-images-idx3-ubyte", random.integers(0, 256, (n, 28, 28), np.uint8))
        _write_idx(folder / RAW / f"{part}-labels-idx1-ubyte", random.integers(0, 10, n, np.uint8))


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())
