"""Downsampled ImageNet from small archives of its form: batches in the order of their numbers, damage."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.sources import ImageNet, imagenet
from attelbo.errors import DataError

ROWS = 3
"""Images in a batch."""


def batch(seed: int, size: int, **changed: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {
        "data": rng.integers(0, 256, (ROWS, 3 * size**2), dtype=np.uint8),
        "labels": rng.integers(1, 1001, ROWS),
        "mean": np.zeros(3 * size**2),
    }
    return arrays | changed


def write(path: Path, batches: dict[str, dict[str, np.ndarray]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, arrays in batches.items():
            np.savez(stream := io.BytesIO(), **arrays)
            archive.writestr(name, stream.getvalue())


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "N_TRAIN", 10 * ROWS)
    monkeypatch.setattr(imagenet, "N_TEST", ROWS)
    return tmp_path


def archives(root: Path, size: int, **changed: np.ndarray) -> None:
    names = {i: f"Imagenet{size}_train_npz/train_data_batch_{i}.npz" for i in (10, *range(1, 10))}
    parts = {"train": names} if size == 32 else {"train_part1": names, "train_part2": {}}
    if size == 64:
        parts["train_part2"] = {i: names.pop(i) for i in (10, *range(6, 10))}
    for part, own in parts.items():
        write(
            root / f"imagenet{size}" / f"Imagenet{size}_{part}_npz.zip",
            {name: batch(i, size) for i, name in own.items()},
        )
    write(root / f"imagenet{size}" / f"Imagenet{size}_val_npz.zip", {"val_data.npz": batch(0, size, **changed)})


@pytest.mark.parametrize("size", [32, 64])
def test_batches_are_in_the_order_of_their_numbers(root, size):
    archives(root, size)
    train, test = ImageNet(size).load(root)
    for images, seeds in ((train, range(1, 11)), (test, [0])):
        expected = [batch(seed, size) for seed in seeds]
        pixels = np.concatenate([part["data"] for part in expected]).reshape(-1, 3, size, size)
        assert np.array_equal(images.x.numpy(), pixels)
        assert images.y.tolist() == [label - 1 for part in expected for label in part["labels"]]
        assert images.y.dtype == torch.int64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": np.zeros((ROWS, 3 * 32**2))}, "data is float64 of shape"),
        ({"data": np.zeros((ROWS, 3 * 16**2), np.uint8)}, "not an archive of ImageNet"),
        ({"data": np.zeros((2, 3 * 32**2), np.uint8), "labels": np.ones(2)}, "2 images up to its end, not 3"),
        ({"data": np.zeros((4, 3 * 32**2), np.uint8), "labels": np.ones(4)}, "not an archive of ImageNet"),
        ({"labels": np.ones(4)}, r"labels \(4,\)"),
        ({"labels": np.array([1, 2, 1001])}, r"expected labels in 0\.\.999"),
    ],
)
def test_damage(root, changed, message):
    archives(root, 32, **changed)
    with pytest.raises(DataError, match=rf"Imagenet32_val_npz\.zip is damaged: .*{message}"):
        ImageNet().load(root)


def test_a_changed_byte_a_missing_file_or_a_page_instead_of_it(root, monkeypatch, no_network):
    archives(root, 32)
    path = root / "imagenet32" / "Imagenet32_val_npz.zip"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged: not an archive of ImageNet .*Bad CRC-32"):
        ImageNet().load(root)
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match="is damaged: not an archive of ImageNet"):
        ImageNet().load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"^ImageNet: missing in .*val_npz\.zip; downloading failed .*no route to host"):
        ImageNet().prepare(root)

    def page(url, folder, name, md5):
        folder.mkdir(parents=True)
        (folder / name).write_text("<html>")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", page)
    with pytest.raises(DataError, match=r"^ImageNet: .*val_npz\.zip is a page, no archive"):
        ImageNet().prepare(root)
    assert not path.exists()


def test_another_size():
    with pytest.raises(ValueError, match=r"^size must be 32 or 64, got 16"):
        ImageNet(16)
