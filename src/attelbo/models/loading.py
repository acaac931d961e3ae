"""From a run directory back to its model and data."""

import hashlib
import io
import math
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from attelbo.building import blamed, build, lacking
from attelbo.checking import GIVEN_TO_MODELS, check_node, naming
from attelbo.data import ResidentDataModule
from attelbo.data.moving import moved
from attelbo.errors import ConfigError, UserError
from attelbo.files import find_run, read_config
from attelbo.models.base import Model


def build_data(config: dict[str, Any]) -> ResidentDataModule:
    """The data module of a configuration; no file is read yet.

    Raises:
        ConfigError: an argument is out of range, or what is built is no such module.
    """
    try:
        data = build(config["data"])
    except TypeError as error:
        raise ConfigError(f"data: {blamed(error, config['data']['_target_'])}") from error
    except ValueError as error:
        raise ConfigError(f"data.{error}") from error
    if not isinstance(data, ResidentDataModule):
        raise ConfigError(
            f"data: {config['data']['_target_']} makes no attelbo.data.ResidentDataModule; images of one's own are an "
            "attelbo.data.sources.ImageSource, data.source"
        )
    return data


def build_model(config: dict[str, Any], data: ResidentDataModule) -> Model:
    """The model of a configuration for this data, its weights drawn from torch's default generator.

    Raises:
        ConfigError: a part is missing, cannot be built from its arguments or does not fit its neighbours, or the model
            is too large for the machine.
    """
    spec = config["model"]
    given = {"data": data.spec, "optimizer": config["optimizer"], "scheduler": config["scheduler"]}
    if "_target_" in spec and (missing := lacking(spec, given)):
        target = spec["_target_"]
        raise ConfigError(f"model.{missing[0]}: {target} cannot do without, and no file and no word gives it")
    try:
        with _within_memory():
            model = build(spec, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model: {blamed(error, spec['_target_'])}") from error
    if not isinstance(model, Model):
        raise ConfigError(
            f"model: {spec['_target_']} makes no attelbo.models.Model; a class of one's own is derived from it"
        )
    return model


@contextmanager
def _within_memory() -> Iterator[None]:
    """Raise ConfigError as soon as the parameters that are made here take more memory than is free: one after the other
    each may fit, until the system ends the process."""
    room, total, shared = free_memory(), 0, set[int]()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is None or parameter.device.type != "cpu" or id(parameter) in shared:
            return
        shared.add(id(parameter))
        total += parameter.nbytes
        if total > room:
            raise ConfigError(
                f"model: out of memory: its parameters take more than the {room / 1e9:,.1f} GB that are free; fewer "
                "or smaller layers take less"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def free_memory() -> float:
    """Bytes that this machine can still give, swapping included; infinity where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        told = {name: int(number.split()[0]) for name, _, number in (line.partition(":") for line in lines)}
        return 1024 * (told["MemAvailable"] + told["SwapFree"])
    except (OSError, ValueError, KeyError):
        return math.inf


def checkpoint_of(run_dir: Path, which: str = "best") -> Path:
    """The file of the ``best``, ``last``, ``average`` or ``epoch<n>`` checkpoint; the last one where there is no best.

    Raises:
        UserError: the run has no checkpoint.
    """
    folder = run_dir / "checkpoints"
    for name in (which, "last") if which == "best" else (which,):
        if (folder / f"{name}.ckpt").is_file():
            return folder / f"{name}.ckpt"
    found = ", ".join(sorted((file.stem for file in folder.glob("*.ckpt")), key=lambda name: (len(name), name)))
    raise UserError(
        f"{run_dir} has no checkpoint in checkpoints/ ({which}): the run saved none, or has not come that far"
        + (f"; there are {found}" if found else "")
    )


def read_weights(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """The weights of a checkpoint by name, and the SHA-256 of the file, which is read once.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    try:
        content = checkpoint.read_bytes()
        return _read(io.BytesIO(content))["state_dict"], hashlib.sha256(content).hexdigest()
    except _UNREADABLE as error:
        raise UserError(f"{checkpoint} cannot be read as a checkpoint: {_told(error)}") from error


def load_weights(model: Model, checkpoint: Path) -> dict[str, Any]:
    """Load the weights of a checkpoint, and nothing else; its whole contents are returned.

    Raises:
        UserError: the file is damaged, or belongs to another model.
    """
    try:
        state = _read(checkpoint)
        model.load_state_dict(state["state_dict"])
    except _UNREADABLE as error:
        raise UserError(f"{checkpoint} is not a checkpoint of this model, or damaged: {_told(error)}") from error
    return state


def _read(checkpoint: Path | io.BytesIO) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of files that are not checkpoints
        return torch.load(checkpoint, map_location="cpu", weights_only=True)


_UNREADABLE = (RuntimeError, LookupError, TypeError, OSError, EOFError, pickle.UnpicklingError)


def _told(error: Exception) -> str:
    """The first line of an error; for weights that do not match, the first difference."""
    first, *others = str(error).splitlines() or [type(error).__name__]
    return shorten(others[0] if others and first.endswith(":") else first, 200, placeholder=" ...")


def load_run(
    run_dir: str | Path, *, checkpoint: str = "best", data_dir: str | None = None
) -> tuple[Model, ResidentDataModule]:
    """The trained model of a run, in evaluation mode on the CPU, and its data module.

    Args:
        run_dir: ``outputs/<name>/<run id>``, or a folder, for its newest run.
        checkpoint: ``best``, ``last``, ``average`` or ``epoch<n>``.
        data_dir: where the data are now, if they have moved.

    Raises:
        UserError: no run there, or it has no such checkpoint.
    """
    run_dir = find_run(Path(run_dir))
    config = read_config(run_dir)
    config["data"] = moved(config["data"], data_dir)
    with naming(run_dir / "config.yaml"):
        check_node(config["data"], "data", given=())
        check_node(config["model"], "model", given=GIVEN_TO_MODELS)
        check_node({name: config[name] for name in ("optimizer", "scheduler")})
        data = build_data(config)
        data.load_state(run_dir)
        model = build_model(config, data)
    load_weights(model, checkpoint_of(run_dir, checkpoint))
    return model.eval(), data
