"""The .amat files of static binarization, and the published split."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data.image import ImageDataModule
from attelbo.data.sources import BinarizedMNIST, binarized_mnist
from attelbo.errors import ConfigError, DataError

SIZES = {"train": 30, "valid": 12, "test": 7}


def amat(x: np.ndarray) -> bytes:
    return b"".join(b" ".join(b"%d" % pixel for pixel in row) + b"\n" for row in x)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Small files whose sums are not known."""
    rng = np.random.default_rng(0)
    images = {split: rng.integers(0, 2, (n, 784), dtype=np.uint8) for split, n in SIZES.items()}
    (tmp_path / "binarized_mnist").mkdir()
    for split, x in images.items():
        (tmp_path / "binarized_mnist" / f"binarized_mnist_{split}.amat").write_bytes(amat(x))
    monkeypatch.setattr(binarized_mnist, "_MD5", dict.fromkeys(SIZES))
    monkeypatch.setattr(BinarizedMNIST, "n_validation", SIZES["valid"])
    return images


def module(root: Path, **options) -> ImageDataModule:
    source = {"_target_": "attelbo.data.sources.BinarizedMNIST"}
    given = {"validation_size": SIZES["valid"], "batch_size": 10, "eval_batch_size": 10, **options}
    data = ImageDataModule("binarized_mnist", source, root=str(root), seed=0, **given)
    data.prepare_data()
    data.setup()
    return data


def test_the_published_split_is_kept(written, tmp_path):
    data = module(tmp_path)
    assert data.spec.kind == "binary"
    assert data.spec.n_classes is None
    for split, name in (("validation", "valid"), ("test", "test")):
        batch = data.materialize(torch.arange(SIZES[name]), split)
        assert np.array_equal(batch.x.view(-1, 784).numpy(), written[name])
        assert batch.y is None
    train = data.materialize(torch.arange(SIZES["train"]), "train").x.view(-1, 784).numpy()
    assert sorted(map(bytes, train.astype(np.uint8))) == sorted(map(bytes, written["train"]))
    assert np.array_equal(
        module(tmp_path, validation_size=5).materialize(torch.arange(5), "validation").x.view(-1, 784).numpy(),
        written["valid"][[0, 2, 4, 7, 9]],  # of 12, all over them
    )


def test_what_does_not_fit_is_refused(written, tmp_path):
    with pytest.raises(ConfigError, match="validation_size must be at most 12, the validation rows of binarized_mnist"):
        module(tmp_path, validation_size=13)
    with pytest.raises(ValueError, match="binarize must be 'none' for binarized_mnist"):
        module(tmp_path, binarize="dynamic")


@pytest.mark.parametrize(
    "content",
    [b"", b"0 1\n" * 10, amat(np.full((2, 784), 2)), amat(np.zeros((2, 784))).replace(b" ", b",")],
    ids=["empty", "short lines", "a two", "commas"],
)
def test_a_damaged_file_is_told(written, tmp_path, content):
    (tmp_path / "binarized_mnist" / "binarized_mnist_test.amat").write_bytes(content)
    with pytest.raises(DataError, match=r"binarized_mnist_test\.amat is damaged: its lines are no 784 zeros and ones"):
        module(tmp_path)


def test_a_wrong_sum_is_told(tmp_path):
    (tmp_path / "binarized_mnist").mkdir()
    for split in SIZES:
        (tmp_path / "binarized_mnist" / f"binarized_mnist_{split}.amat").write_bytes(amat(np.zeros((2, 784))))
    with pytest.raises(DataError, match="published is db28b1a6ae0fe70cbd3da91acf46e477"):
        BinarizedMNIST().load(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"missing in .*binarized_mnist/binarized_mnist_train\.amat \(MD5 db28b1a6"):
        BinarizedMNIST().load(tmp_path)
