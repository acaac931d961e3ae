"""CIFAR's python batches: small ones, damaged ones, hostile ones."""

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.sources import CIFAR10, CIFAR100
from attelbo.errors import DataError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write_cifar_batch(path: Path, label_key: str, n: int, n_classes: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """A batch as CIFAR's authors wrote them: a pickled dictionary with rows of 3 x 32 x 32 bytes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
    labels = [int(label) for label in rng.integers(0, n_classes, n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": pixels, label_key: labels, "filenames": ["x.png"] * n}, protocol=4))
    return torch.from_numpy(pixels).view(n, 3, 32, 32), labels


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """Five batches of 4 and a test batch of 3 in CIFAR-10's files, and their rows."""
    from torchvision import datasets

    folder = tmp_path / datasets.CIFAR10.base_folder
    names = [f"data_batch_{i}" for i in range(1, 6)]
    rows = {name: write_cifar_batch(folder / name, "labels", 4, 10, seed) for seed, name in enumerate(names)}
    rows["test_batch"] = write_cifar_batch(folder / "test_batch", "labels", 3, 10, 9)
    sums = {name: md5((folder / name).read_bytes()) for name in rows}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, sums[name]] for name in names])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    return tmp_path, rows


def test_cifar10(small_cifar):
    root, rows = small_cifar
    train, test = CIFAR10().load(root)
    batches = [rows[f"data_batch_{i}"] for i in range(1, 6)]
    assert torch.equal(train.x, torch.cat([x for x, _ in batches]))
    assert train.y.tolist() == [label for _, labels in batches for label in labels]
    assert torch.equal(test.x, rows["test_batch"][0])


def test_cifar100_reads_the_fine_labels(tmp_path, monkeypatch):
    from torchvision import datasets

    folder = tmp_path / datasets.CIFAR100.base_folder
    _, labels = write_cifar_batch(folder / "train", "fine_labels", 20, 100, 0)
    write_cifar_batch(folder / "test", "fine_labels", 5, 100, 1)
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5((folder / "train").read_bytes())]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5((folder / "test").read_bytes())]])
    assert CIFAR100().load(tmp_path).train.y.tolist() == labels
    assert max(labels) > 9


def test_cifar_damage(small_cifar, monkeypatch):
    from torchvision import datasets

    root, _ = small_cifar
    path = root / datasets.CIFAR10.base_folder / "test_batch"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"test_batch is damaged: its MD5 sum"):
        CIFAR10().load(root)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(content[:-20])]])
    with pytest.raises(DataError, match=r"test_batch is damaged: not a CIFAR batch"):
        CIFAR10().load(root)


def test_a_pickle_that_calls_something_is_refused(small_cifar, monkeypatch):
    from torchvision import datasets

    root, _ = small_cifar
    path = root / datasets.CIFAR10.base_folder / "test_batch"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(root / "harm").encode() + b"'\ntR.")
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(path.read_bytes())]])
    with pytest.raises(DataError, match=r"os\.system is not part of an array"):
        CIFAR10().load(root)
    assert not (root / "harm").exists()


def test_cifar_archive_in_place_needs_no_network(small_cifar, monkeypatch, no_network):
    """A tar.gz that the user put there is extracted, not downloaded again."""
    from torchvision import datasets

    root, rows = small_cifar
    folder = root / datasets.CIFAR10.base_folder
    archive = root / datasets.CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, datasets.CIFAR10.base_folder)
    content = archive.read_bytes()
    for path in folder.iterdir():
        path.unlink()
    (folder / "batches.meta").write_bytes(b"x")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is damaged"):
        CIFAR10().prepare(root)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(content))
    # torchvision would open the meta file in the extracted folder, which is not what is tested here
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    CIFAR10().prepare(root)
    assert torch.equal(CIFAR10().load(root).test.x, rows["test_batch"][0])
    assert archive.read_bytes() == content
    assert not archive.is_symlink()
