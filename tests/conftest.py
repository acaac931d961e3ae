"""Very small runs of the whole line, in this process: configuration, training, run directory."""

import gc
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import registry
from lightning.pytorch import Callback, Trainer

from attelbo.building import build
from attelbo.experiments import run
from attelbo.experiments.composing import session
from attelbo.experiments.configuration import check, compose
from companions import small_words

# 10 minibatches of 10 rows in an epoch, in blocks of 4, 4 and 2; 2 epochs.
SMALL = (
    "~experiment",
    "name=small",
    "data.train_size=100",
    "data.batch_size=10",
    "data.minibatches_per_block=4",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "callbacks=checkpoint",
    "evaluation.n_samples=2",
    "evaluation.n_images=5",
)


class Runs:
    """Composes, trains and reads back; everything is written below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def words(self, *words: str, without: Sequence[str] = ()) -> list[str]:
        """The words of the command line for a small run; of two for the same key the later counts."""
        given = [word for word in (*SMALL, *small_words(words)) if word not in without]
        return list({w.partition("=")[0]: w for w in (*given, f"paths.output_dir={self.folder}", *words)}.values())

    def configure(self, *words: str, without: Sequence[str] = ()) -> dict[str, Any]:
        """The checked configuration of a small run, ``without`` some of what makes it small."""
        return self.compose(self.words(*words, without=without))

    @staticmethod
    def compose(words: Sequence[str]) -> dict[str, Any]:
        """The checked configuration of exactly these words."""
        composed = compose("train", words)
        check(composed)
        return composed.config

    def train(self, *words: str, sweep: Path | None = None) -> run.Outcome:
        """What ``attelbo train`` does with a composed configuration."""
        return run.train(self.configure(*words), list(words), {}, sweep)

    def fit(self, *words: str, callbacks: tuple[Callback, ...] = (), without: Sequence[str] = ()) -> Trainer:
        """Only the training, without a run directory; the model is ``trainer.lightning_module``."""
        return self.fit_composed(self.configure("callbacks=none", *words, without=without), callbacks)

    def fit_composed(self, config: dict[str, Any], callbacks: tuple[Callback, ...] = ()) -> Trainer:
        """Only the training of a checked configuration."""
        model, data = run.assemble(config)
        trainer = build(config["trainer"], run_dir=self.folder, seed=config["seed"], callbacks=config["callbacks"])
        trainer.callbacks.extend(callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        trainer.fit(model, datamodule=data)
        return trainer

    @staticmethod
    def checkpoint(outcome: run.Outcome, name: str = "last") -> dict[str, Any]:
        return torch.load(outcome.run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Ten thousand tests, which all stay, are not searched for garbage while they are collected, nor later."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries that count their objects call them leaked


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "outputs")


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """For runs that several tests of a module look at, and none changes."""
    return Runs(tmp_path_factory.mktemp("shared") / "outputs")


@pytest.fixture(autouse=True, scope="session")
def one_session() -> Iterator[None]:
    """Hydra, one for all tests: no file of ``conf/`` is read twice, and no choice of files merged twice."""
    with session():
        yield


@pytest.fixture(autouse=True, scope="session")
def packages_asked_once() -> Iterator[None]:
    """Each Trainer asks all installed packages, 20 ms, whether one brings a callback for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_disks() -> Iterator[None]:
    """A run writes a dozen files that must outlive a power failure, 5 ms each; no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def seeds_without_a_trace() -> Iterator[None]:
    """Until a GPU is used, ``torch.manual_seed`` notes for CUDA and XPU which lines called it, 1 ms below pytest."""
    with pytest.MonkeyPatch.context() as patch:
        for device in (torch.cuda, torch.xpu):
            patch.setattr(device, "traceback", SimpleNamespace(format_stack=list))
        yield


@pytest.fixture(autouse=True, scope="session")
def environment() -> Iterator[None]:
    """Lightning leaves its seed in the environment, the training its number of threads."""
    before, threads = dict(os.environ), torch.get_num_threads()
    # Two threads on shared cores wait for each other most of the time; processes that tests start read the variable.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    yield
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def pretrained(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where torch looks for pretrained weights: random ones of VGG-19, as far as relu3_1, of the real shapes."""
    home = tmp_path_factory.mktemp("torch_home")
    os.environ["TORCH_HOME"] = str(home)
    generator = torch.Generator().manual_seed(0)
    weights, channels = {}, 3
    for place, width in ((0, 64), (2, 64), (5, 128), (7, 128), (10, 256)):
        shape, std = (width, channels, 3, 3), (2 / (9 * channels)) ** 0.5
        weights[f"features.{place}.weight"] = std * torch.randn(shape, generator=generator)
        weights[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=generator)
        channels = width
    path = home / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    path.parent.mkdir(parents=True)
    torch.save(weights, path)
    return path
