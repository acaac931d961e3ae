"""What the data tests share: the real files where present, the embedded digits, a machine without network."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from attelbo.data.image import ImageDataModule


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Where real data sets are, if they are."""
    return Path(os.environ.get("ATTELBO_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data(data_folder: Path) -> Path:
    """A folder with the real MNIST and Fashion-MNIST; tests that need it are skipped where there is none."""
    if not (data_folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    return data_folder


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


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download fails as it does without a network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
