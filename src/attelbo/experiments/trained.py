"""A trained model, loaded from the directory of its run, for the commands that use it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

import torch

from attelbo.data import ResidentDataModule
from attelbo.data.moving import where_now
from attelbo.errors import ConfigError
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.settings import Which
from attelbo.experiments.terminal import terminal
from attelbo.files import why_not_written
from attelbo.models import Model, load_run
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator

Accelerator = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Trained:
    """A model, its data, and where output goes."""

    run_dir: Path
    model: Model
    data: ResidentDataModule
    device: torch.device
    checkpoint: Which

    @classmethod
    def of(cls, run: str, checkpoint: Which, accelerator: Accelerator, data_dir: str | None = None) -> Self:
        """Load a run, with a note if it is not done; no row of its data is read yet.

        Raises:
            UserError: not a run directory, or no checkpoint in it.
        """
        device = pick_device(accelerator)
        directory = RunDirectory.find(Path(run))
        run_dir, state = directory.path, directory.status()["state"]
        model, data = load_run(run_dir, checkpoint=checkpoint, data_dir=data_dir)
        if state != "done":
            sys.stderr.write(f"{run_dir} is {state}, not done\n")
        return cls(run_dir, model.to(device), data, device, checkpoint)

    def with_data(self) -> Self:
        """Read the data, downloading what is missing."""
        with where_now():
            self.data.prepare_data()
            self.data.setup()
        return self

    @property
    def described(self) -> str:
        """The run in words, for errors."""
        return f"{self.run_dir} is the run of a {type(self.model).__name__} on {self.data.spec.name}"

    def seed(self, seed: int, purpose: str) -> None:
        """Seed the device's default generator by these alone."""
        seed_default_generator(derive_seed(seed, purpose), self.device)

    def path(self, output: str | None, name: str) -> Path:
        """The file to write: ``output`` if given, else ``name`` in ``media/`` of the run, to which the name of other
        weights than the best is added.

        Raises:
            ConfigError: it has another suffix than ``name``, or cannot be written.
        """
        own = Path(name) if self.checkpoint == "best" else Path(name).with_stem(f"{Path(name).stem}-{self.checkpoint}")
        return writable("output", Path(output) if output else self.run_dir / "media" / own, own.suffix)


def pick_device(accelerator: Accelerator) -> torch.device:
    """The first GPU, or the CPU.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("accelerator=gpu: this machine has no GPU that torch can use; accelerator=auto takes the CPU")
    return torch.device("cuda", 0) if accelerator != "cpu" and torch.cuda.is_available() else torch.device("cpu")


def writable(key: str, path: Path, form: str) -> Path:
    """The file that this key names, checked: it has the suffix ``form`` and can be written. Missing folders are created
    when it is written, not here.

    Raises:
        ConfigError: it has another suffix, or cannot be written.
    """
    if path.suffix.lower() != form:
        raise ConfigError(f"{key}={path}: the file is {form.removeprefix('.').upper()}: its name must end in {form}")
    if why := why_not_written(path):
        raise ConfigError(f"{key}={path}: it cannot be written: {why}")
    return path


def print_written(what: str, path: Path) -> None:
    """Print what was written where."""
    terminal().print(f"{what}: {path}")


def marks(**asked: object) -> str:
    """Options as part of a file's name, so that output with other options is not overwritten: numbers as they are,
    texts by the first digits of their SHA-256."""

    def mark(value: object) -> object:
        return sha256(value.encode()).hexdigest()[:6] if isinstance(value, str) else "" if value is True else value

    return "".join(f"-{name}{mark(value)}" for name, value in _given(asked).items())


def refuse(why: str, **asked: object) -> None:
    """Raise ConfigError if one of these options is given, that is, neither None nor False."""
    for name, value in _given(asked).items():
        shown = "true" if value is True else value
        raise ConfigError(f"{name}={shown}: {why}")


def _given(asked: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in asked.items() if value is not None and value is not False}
