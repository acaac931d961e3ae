"""Begin with the weights of another run, and freeze parts of the model: the node ``init`` of train.yaml.

For fine-tuning, warm starts and transfer: a new run, whose optimizer, schedule and step begin anew. (``ckpt=PATH``
continues another training instead.) It is itself resumed like every run, from its own last checkpoint.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from attelbo.data import ResidentDataModule
from attelbo.errors import ConfigError, UserError, did_you_mean, nearest
from attelbo.experiments.rundir import RunDirectory, given_checkpoint
from attelbo.experiments.settings import Init
from attelbo.files import read_config
from attelbo.models import Model, checkpoint_of
from attelbo.models.loading import read_weights


def init_of(config: Mapping[str, Any]) -> Init:
    """The ``init`` settings of a run.

    Raises:
        ConfigError: they go together with ``ckpt=PATH``, with parts but no run, or with frozen parts of replicas.
    """
    init = Init(**config.get("init", {}))
    if init.run == "":
        raise ConfigError("init.run is empty, as an unset variable is; null begins without another run")
    if init.run is not None and given_checkpoint(config) is not None:
        raise ConfigError("ckpt goes on with another training, init.run begins one with its weights: give one of them")
    if init.run is None and init.only:
        raise ConfigError("init.only names parts of another run, and there is none: init.run=<run directory>")
    if init.freeze and config["trainer"].get("replicas", 1) > 1:
        raise ConfigError("init.freeze: replicas train all of their weights: trainer.replicas=1")
    return init


def take_vocabulary(init: Init, config: Mapping[str, Any], data: ResidentDataModule, parent: Path) -> None:
    """Take the vocabulary of the other run, whose embeddings are taken over; called before ``spec`` is used. A
    run in the folder ``parent`` that ``ckpt=auto`` resumes has the vocabulary itself: the other run may be gone by now.

    Raises:
        ConfigError: its tokens are of another kind.
    """
    kinds = {key: node["_target_"] for key, node in config["data"].items() if key.endswith("tokenizer") and node}
    if init.run is None or not kinds:
        return
    begun = RunDirectory.latest(parent, config) if config.get("ckpt") == "auto" else None
    source = begun.path if begun and begun.resumable else _source(init.run)
    of_source = read_config(source)["data"]
    for key, kind in kinds.items():
        if (other := (of_source.get(key) or {}).get("_target_")) != kind:
            raise ConfigError(f"data.{key}: the tokens of {source} are {other or 'none'}, here they are {kind}")
    data.load_state(source)


def freeze(init: Init, model: Model) -> None:
    """Freeze parts of the model; see :meth:`Model.freeze_parts`.

    Raises:
        ConfigError: there is no such part, or nothing is left to train, if only for one of several optimizers.
    """
    model.freeze_parts([_part(model, name, "freeze") for name in init.freeze])
    players = model.players()
    idle = [player for player in players if not player.parameters]
    if init.freeze and idle:
        whose = f" for {len(idle)} of the {len(players)} optimizers that take turns" if len(idle) < len(players) else ""
        raise ConfigError(f"init.freeze=[{','.join(init.freeze)}] leaves nothing to train{whose}")


def take_weights(init: Init, model: Model) -> dict[str, Any] | None:
    """Load the other run's weights into the model, and print a line; a record of it, None where no run is named.

    Raises:
        UserError: there is no such run, or it has no such checkpoint.
        ConfigError: the weights do not fit, or the model has none of them.
    """
    if init.run is None:
        return None
    checkpoint = checkpoint_of(_source(init.run), init.checkpoint)
    given, checksum = read_weights(checkpoint)
    own = model.state_dict()
    for name in init.only or ():
        _part(model, name, "only")
    asked = [name for name in own if init.only is None or _within(name, init.only)]
    taken = {name: given[name] for name in asked if name in given}
    new = [name for name in asked if name not in given]
    misfits = [name for name, value in taken.items() if value.shape != own[name].shape]
    if misfits:
        told = ", ".join(f"{name} is {_size(own[name])} here and {_size(taken[name])} there" for name in misfits[:3])
        more = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ConfigError(f"init: {told}{more} [{checkpoint}]; init.only=[...] takes parts that fit")
    if not taken or (init.only and new):
        lacking = f"{new[0]} is not in it" if new else "none of its weights is one of this model's"
        raise ConfigError(f"init: {checkpoint}: {lacking}; it has {', '.join(_parts(given))}")
    model.load_state_dict(taken, strict=False)
    numbers = sum(value.numel() for value in taken.values())
    others = _parts(own.keys() - taken.keys())
    beside = f"; new: {', '.join(others)}" if others else ""
    sys.stdout.write(f"begins with {numbers:,} numbers of {checkpoint}: {', '.join(_parts(taken))}{beside}\n")
    return {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": checksum,
        "taken": sorted(taken),
    }


def _source(run: str) -> Path:
    try:
        return RunDirectory.find(Path(run)).path
    except UserError as error:
        raise ConfigError(f"init.{error}") from error


def _part(model: Model, name: str, key: str) -> nn.Module:
    try:
        return model.get_submodule(name or "a part without a name")
    except AttributeError:
        parts = [part for part, _ in model.named_modules() if part]
        outer = [part for part, _ in model.named_children()]
        guess = did_you_mean(nearest(name, parts))
        raise ConfigError(
            f"init.{key}: {type(model).__name__} has no part {name!r}{guess} (there are {', '.join(outer)}, and parts "
            "of these)"
        ) from None


def _within(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


def _parts(names: Iterable[str]) -> list[str]:
    """The first parts of the names, each once."""
    return sorted({name.partition(".")[0] for name in names})


def _size(value: Any) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
