"""A source of images of one's own, as CONTRIBUTING shows it: in Python, in a package of one's own, and with slips."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attelbo.building import OWN
from attelbo.cli import main
from attelbo.data import ArrayDataModule, ImageDataModule
from attelbo.data.sources import Digits, Images, ImageSource, Splits
from attelbo.errors import DataError
from attelbo.experiments.listing import package_folder

(SHOWN,) = re.findall(
    r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(), re.M | re.S
)
CODE = f"""from pathlib import Path

import torch

from attelbo.data.sources import Images, ImageSource, Splits


{SHOWN}"""
GIVEN: dict[str, Any] = {"name": "mine", "root": ".", "seed": 0, "batch_size": 8, "eval_batch_size": 8}


def scope() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(CODE, names)
    return names


def test_a_source_made_in_python_is_taken_as_its_node_is():
    made = ImageDataModule(source=Digits(), validation_size=100, **GIVEN)
    named = ImageDataModule(source={"_target_": "attelbo.data.sources.Digits"}, validation_size=100, **GIVEN)
    assert made.spec == named.spec
    assert made.checksums() == named.checksums()


def test_the_source_that_contributing_shows_is_read():
    data = ImageDataModule(source=scope()["Checkers"](), validation_size=20, **GIVEN)
    assert (data.spec.shape, data.spec.n_classes) == ((1, 8, 8), 2)
    batch = data.materialize(torch.arange(2), "test")
    assert batch.x[0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert torch.equal(batch.x[1], 1 - batch.x[0])
    assert len(SHOWN.strip().splitlines()) <= 12


def test_a_source_in_a_package_of_ones_own_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab/data.py").write_text(CODE)
    (tmp_path / "conf/data").mkdir(parents=True)
    own = (package_folder() / "data/digits.yaml").read_text()  # and what CONTRIBUTING has changed in it
    for word, mine in (("attelbo.data.sources.Digits", "mylab.data.Checkers"), ("size: 144", "size: null")):
        assert word in own
        own = own.replace(word, mine)
    own = own.replace("name: digits", "name: checkers")
    (tmp_path / "conf/data/checkers.yaml").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(OWN, "mylab")
    words = ["data=checkers", "model/encoder=mlp", "model/decoder=mlp", "trainer.max_epochs=1", "callbacks=none"]
    assert main(["train", *words, "evaluation.n_samples=2"]) == 0
    assert len(list(tmp_path.glob("outputs/checkers/*/result.json"))) == 1


@pytest.mark.parametrize("source", [Digits, "digits", torch.nn.Identity(), {"_target_": "torch.nn.Identity"}])
def test_what_is_no_source_is_told_in_a_line(source):
    with pytest.raises(
        ValueError, match=r"^source must be an attelbo.data.sources.ImageSource, or a mapping with the "
    ):
        ImageDataModule(source=source, validation_size=10, **GIVEN)


class Own(ImageSource):
    """What the test says it is."""

    def __init__(self, x: Any, y: Any = None, **said: Any) -> None:
        self.images = Images(x, y)
        vars(self).update(said)

    def load(self, root: Path) -> Splits:
        return Splits(self.images, self.images)


X, Y = torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20) % 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Own(X.float(), shape=(1, 4, 4)), "x must be uint8 of shape (N, 1, 4, 4), got float32 of shape (20, 1, 4, 4)"),
        (Own(X.numpy(), shape=(1, 4, 4)), "x must be uint8 of shape (N, 1, 4, 4), got ndarray of shape (20, 1, 4, 4)"),
        (Own(X, shape=(1, 4, 5)), "x must be uint8 of shape (N, 1, 4, 5), got uint8 of shape (20, 1, 4, 4)"),
        (Own(X, shape=(1, 4, 4), n_classes=2), "y must be int64 of shape (20,), got none"),
        (Own(X, Y.int(), shape=(1, 4, 4), n_classes=2), "y must be int64 of shape (20,), got int32 of shape (20,)"),
        (Own(X, Y + 1, shape=(1, 4, 4), n_classes=2), "y must be in 0..1, got 1..2"),
    ],
)
def test_rows_that_are_not_what_the_source_says_are_told_in_a_line(source, said):
    with pytest.raises(DataError) as error:
        ImageDataModule(source=source, validation_size=10, **GIVEN).setup()
    assert str(error.value) == f"Own.load: {said}"


@pytest.mark.parametrize(
    ("read", "got"),
    [((X, X), "tuple of Tensor, Tensor"), (None, "NoneType"), (Images(X, Y), "Images of Tensor, Tensor, NoneType")],
)
def test_what_is_no_splits_is_told_in_a_line(read, got, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Own, "load", lambda self, root: read)
    with pytest.raises(DataError) as error:
        ImageDataModule(source=Own(X, shape=(1, 4, 4)), validation_size=10, **GIVEN).setup()
    assert str(error.value) == f"Own.load must give Splits(Images(x, y), Images(x, y)), got a {got}"


def test_a_source_without_a_shape_and_one_of_real_numbers_are_told_what_is_missing():
    with pytest.raises(ValueError, match=r"^source must have a shape, \(C, H, W\); Own has none$"):
        ImageDataModule(source=Own(X), validation_size=10, **GIVEN)
    real = Own(torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3))), shape=(3,), real=True)
    with pytest.raises(
        ValueError, match=r"^source of mine has real numbers, which attelbo.data.ArrayDataModule takes$"
    ):
        ImageDataModule(source=real, validation_size=10, **GIVEN)
    data = ArrayDataModule(source=real, standardize="each", **GIVEN)
    assert data.spec.kind == "real"
    torch.testing.assert_close(data.restored(data.materialize(torch.arange(20), "test").x), real.images.x)
