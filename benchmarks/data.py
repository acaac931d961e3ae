"""MNIST and CIFAR-10 for the contestants, or random images in their files' place: the arithmetic takes the same time.

Needs nothing but numpy, since a contestant may live in another environment.
"""

import gzip
import pickle
from pathlib import Path
from typing import Literal

import numpy as np

Name = Literal["mnist", "cifar10"]

RAW = Path("MNIST", "raw")
IDX = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
BATCHES = Path("cifar-10-batches-py")
TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TITLES: dict[Name, str] = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
SIZES: dict[Name, tuple[int, int]] = {"mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}
"""Rows for training and for the test."""


def lay_out(name: Name, source: Path, folder: Path) -> bool:
    """Put a data set's extracted files below ``folder``, random ones if ``source`` has none; whether they are real."""
    real = has(name, source)
    if not real:
        {"mnist": write_random_mnist, "cifar10": write_random_cifar10}[name](folder, *SIZES[name])
    elif name == "cifar10":
        (folder / BATCHES).symlink_to((source / BATCHES).absolute(), target_is_directory=True)
    else:
        (folder / RAW).mkdir(parents=True)
        for file in sum(IDX.values(), ()):
            packed = source / RAW / f"{file}.gz"
            content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (source / RAW / file).read_bytes()
            (folder / RAW / file).write_bytes(content)
    return real


def has(name: Name, folder: Path) -> bool:
    """Whether a data folder holds the data set, MNIST packed or extracted."""
    if name == "cifar10":
        return all((folder / BATCHES / batch).is_file() for batch in (*TRAIN_BATCHES, "test_batch"))
    files = [folder / RAW / file for file in sum(IDX.values(), ())]
    return all(file.is_file() or file.with_name(f"{file.name}.gz").is_file() for file in files)


def training_images(name: Name, folder: Path) -> np.ndarray:
    """The training images as bytes, (N, C, H, W), from the files of :func:`lay_out`."""
    if name == "mnist":
        content = np.fromfile(folder / RAW / IDX["train"][0], np.uint8)
        return content[16:].reshape(-1, 1, 28, 28)
    batches = []
    for batch in TRAIN_BATCHES:
        with (folder / BATCHES / batch).open("rb") as file:
            batches.append(pickle.load(file, encoding="latin1")["data"])
    return np.concatenate(batches).reshape(-1, 3, 32, 32)


def write_random_mnist(folder: Path, n_train: int, n_test: int) -> None:
    """Write MNIST's four extracted files below a folder, with random bytes and labels."""
    (folder / RAW).mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, n in (("train", n_train), ("t10k", n_test)):
        images, labels = IDX[part]
        _write_idx(folder / RAW / images, random.integers(0, 256, (n, 28, 28), np.uint8))
        _write_idx(folder / RAW / labels, random.integers(0, 10, n, np.uint8))


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.tobytes())


def write_random_cifar10(folder: Path, n_train: int, n_test: int) -> None:
    """Write CIFAR-10's six batches below a folder, with random bytes and labels; the MD5 sums are not the real ones."""
    (folder / BATCHES).mkdir(parents=True)
    random = np.random.default_rng(0)
    for batch, n in [(batch, n_train // 5) for batch in TRAIN_BATCHES] + [("test_batch", n_test)]:
        content = {
            "data": random.integers(0, 256, (n, 3072), np.uint8),
            "labels": random.integers(0, 10, n).tolist(),
        }
        # From protocol 5 on, Python 3.14's default, arrays are pickled in a way that the real files never are.
        (folder / BATCHES / batch).write_bytes(pickle.dumps(content, protocol=4))
