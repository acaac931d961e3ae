"""The published files themselves, where they are present."""

from pathlib import Path

import pytest

from attelbo.data.image import ImageDataModule
from attelbo.data.sources import CIFAR10, MNIST, BinarizedMNIST, FashionMNIST, Omniglot


def test_mnist(shared_data: Path):
    train, test = MNIST().load(shared_data)
    assert (tuple(train.x.shape), tuple(test.x.shape)) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    # The mean and deviation that everyone normalizes with.
    assert train.x.double().mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert train.x.double().std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert train.y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_fashion_mnist(shared_data: Path):
    train, test = FashionMNIST().load(shared_data)
    assert train.x.double().mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert train.y.bincount().tolist() == [6000] * 10
    assert test.y.bincount().tolist() == [1000] * 10


def test_mnist_equals_torchvision(shared_data: Path, tmp_path: Path):
    """torchvision reads extracted files, so it gets a writable copy of the test images."""
    from torchvision import datasets

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (shared_data / "MNIST" / "raw").glob("*.gz"):
        (raw / path.name).symlink_to(path)
    ours = MNIST().load(shared_data).test
    theirs = datasets.MNIST(tmp_path, train=False, download=True)  # only extracts what is there
    assert ours.x.squeeze(1).equal(theirs.data)
    assert ours.y.equal(theirs.targets)


def test_mnist_module(shared_data: Path):
    data = ImageDataModule(
        name="mnist",
        source={"_target_": "attelbo.data.sources.MNIST"},
        root=str(shared_data),
        seed=0,
        batch_size=100,
        eval_batch_size=1000,
        validation_size=10_000,
        binarize="dynamic",
    )
    data.prepare_data()
    batches = [
        data.materialize(index, "train") for block in data.train_dataloader() for index in data.minibatches(block)
    ]
    assert len(batches) == 500
    mean = sum(float(batch.x.mean()) for batch in batches) / 500
    assert mean == pytest.approx(0.1307, abs=5e-4)


def test_cifar10(shared_data: Path):
    source = CIFAR10()
    if source.missing(shared_data):
        pytest.skip(f"no CIFAR-10 batches in {shared_data}")
    train, test = source.load(shared_data)
    means = train.x.double().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert train.y.bincount().tolist() == [5000] * 10
    assert test.y.bincount().tolist() == [1000] * 10


def test_omniglot_small(shared_data: Path):
    source = Omniglot(variant="small")
    if source.missing(shared_data):
        pytest.skip(f"no omniglot_small in {shared_data}")
    train, test = source.load(shared_data)
    assert train.y.bincount().tolist() == [16] * 242
    assert test.y.bincount().tolist() == [4] * 242


def test_binarized_mnist(shared_data: Path):
    source = BinarizedMNIST()
    if source.missing(shared_data):
        pytest.skip(f"no binarized_mnist in {shared_data}")
    train, test = source.load(shared_data)
    assert (len(train.x), len(test.x)) == (60_000, 10_000)
    # A draw of MNIST: as bright on average.
    assert float(train.x.double().mean()) == pytest.approx(0.1307, abs=5e-4)
    assert set(train.x.unique().tolist()) == {0, 1}
