"""From a checked configuration to the objects of a run. What cannot be built is an error before anything is written."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch import callbacks as lightning
from torch import nn
from torchmetrics import Metric

from attelbo.building import Spec, build, flatten
from attelbo.data import ResidentDataModule
from attelbo.errors import ConfigError, one_line
from attelbo.experiments.evaluation import check_evaluation
from attelbo.experiments.rundir import given_checkpoint
from attelbo.experiments.settings import Evaluation, Which, epoch_of
from attelbo.experiments.starting import freeze, init_of, take_vocabulary, take_weights
from attelbo.models import Model, build_data, build_model, count_parameters
from attelbo.training import check_settings, refuse_single_batches
from attelbo.training.callbacks import Checkpoint, EarlyStopping, EpochWeights, WeightAverage
from attelbo.training.loggers import check_loggers
from attelbo.training.replicas import Seat

Config = dict[str, Any]


def verify(config: Config) -> list[str]:
    """Build everything that needs no data file; a line about it, and one for each part of the model.

    Raises:
        ConfigError: a part cannot be built from its arguments, or does not fit its neighbours.
    """
    model, data = assemble(config)
    refuse_single_batches(data)
    if checkpoint := given_checkpoint(config):
        check_is_there(checkpoint)
    take_weights(init_of(config), model)
    shape = " x ".join(map(str, data.spec.shape))
    about = f"{count_parameters(model):,} parameters, {data.spec.name} ({shape}, {data.spec.kind})"
    return [f"{type(model).__name__}, {about}", *_parts(model)]


def _parts(model: Model) -> list[str]:
    """Name, class and numbers of each part, in columns; what only measures is no part."""
    parts = {name: part for name, part in model.named_children() if not isinstance(part, Metric)}
    rows = [(name, type(part).__name__, _numbers(part)) for name, part in parts.items()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {numbers:>{widths[2]}}".rstrip() for name, kind, numbers in rows
    ]


def _numbers(part: nn.Module) -> str:
    trained, every = count_parameters(part), sum(parameter.numel() for parameter in part.parameters())
    return " + ".join([f"{trained:,}"] * bool(trained) + [f"{every - trained:,} frozen"] * (every > trained))


def check_is_there(checkpoint: Path) -> None:
    """Raise ConfigError where a checkpoint that was given is not a file."""
    if not checkpoint.is_file():
        raise ConfigError(
            f"ckpt: no such file: {checkpoint}; ckpt=auto goes on with the interrupted run of this configuration"
        )


def assemble(config: Config) -> tuple[Model, ResidentDataModule]:
    """Model and data of a configuration; the weights are a function of the seed. What is needed only later, such as
    callbacks, is tried here too, so that its errors show before anything is written.

    Raises:
        ConfigError: they, or something that is needed later, cannot be built from the arguments.
    """
    _check_place_and_seed(config)
    evaluation, init = evaluation_of(config), init_of(config)
    check_settings(**{name: value for name, value in config["trainer"].items() if name != "_target_"})
    check_loggers(config["logger"])
    _check_finite("optimizer", config["optimizer"])
    _try("optimizer", config["optimizer"], [torch.zeros(1, requires_grad=True)])
    _try("scheduler", config["scheduler"])
    callbacks = {name: _try(f"callbacks.{name}", node) for name, node in config["callbacks"].items() if node}
    _check_is_kept(evaluation.checkpoint, callbacks)
    seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config)
    data.steps_per_epoch = config["trainer"].get("steps_per_epoch")
    take_vocabulary(init, config, data, parent_of(config))
    model = build_model(config, data)
    _check_has_use(model, data, config)
    freeze(init, model)
    _check_callbacks(callbacks, model)
    try:
        check_evaluation(evaluation, model, data, f"a {type(model).__name__} on {data.spec.name}", config)
    except ConfigError as error:
        raise _of_evaluation(error) from error
    return model, data


def evaluation_of(config: Config) -> Evaluation:
    """How the trained model is measured.

    Raises:
        ConfigError: a number is out of range.
    """
    try:
        return Evaluation(**config["evaluation"])
    except ValueError as error:
        raise _of_evaluation(error) from error


def _of_evaluation(error: Exception) -> ConfigError:
    """The message with the keys of evaluate.yaml that it names as they are called in train.yaml."""
    keys = "|".join(field.name for field in fields(Evaluation))
    return ConfigError("evaluation." + re.sub(rf" ({keys})=", r" evaluation.\1=", str(error)))


def trainer_of(config: Config, seat: Seat | None = None) -> Trainer:
    """The Trainer of a configuration; ``attach_run`` gives it its directory and loggers.

    Raises:
        ConfigError: the settings contradict each other or this machine.
    """
    return build(
        config["trainer"],
        run_dir=parent_of(config),
        seed=config["seed"],
        callbacks=config["callbacks"],
        seat=seat,
    )


def parent_of(config: Config) -> Path:
    """The folder in which the run's directory is created."""
    return Path(config["paths"]["output_dir"]) / config["name"]


def _check_place_and_seed(config: Config) -> None:
    """Raise ConfigError where a run of this name could not be written, or the seed is none that all generators take."""
    folder = Path(config["name"])
    if not folder.parts or folder.is_absolute() or ".." in folder.parts:
        raise ConfigError(f"name='{config['name']}': a run is written into the folder of this name in paths.output_dir")
    if not config["paths"]["output_dir"].strip():
        raise ConfigError("paths.output_dir is empty, as an unset variable is; . is the working directory")
    if not 0 <= config["seed"] < 2**32:
        raise ConfigError(f"seed must be between 0 and {2**32 - 1:,}, got {config['seed']}")


def _check_is_kept(checkpoint: Which, callbacks: Mapping[str, Any]) -> None:
    """Raise ConfigError where the weights that are to be measured will not be saved."""
    if checkpoint == "average" and not any(isinstance(each, WeightAverage) for each in callbacks.values()):
        raise ConfigError("evaluation.checkpoint=average: nothing averages the weights; callbacks=average does")
    if (epoch := epoch_of(checkpoint)) is not None:
        intervals = [each.every_n_epochs for each in callbacks.values() if isinstance(each, EpochWeights)]
        if not any(epoch % interval == 0 for interval in intervals):
            remedy = f"callbacks=epochs and an every_n_epochs that divides {epoch} keep it"
            raise ConfigError(f"evaluation.checkpoint={checkpoint}: the weights of that epoch are not kept; {remedy}")


def _check_has_use(model: Model, data: ResidentDataModule, config: Config) -> None:
    """Raise ConfigError where the data are to have something that the model makes no use of."""
    asked = {"n_labels": ("few labels", "m2", data.spec.n_labels), "pairs": ("pairs", "ada_gvae", data.spec.pairs)}
    for key, (what, other, given) in asked.items():
        if given and key not in model.uses_data_keys:
            raise ConfigError(
                f"data.{key}={config['data'][key]}: a {type(model).__name__} does not learn from {what}; "
                f"model={other} does, data.{key}=null is for those that do not"
            )


_WITHOUT_LIGHTNINGS_STEP = {
    lightning.GradientAccumulationScheduler: "trainer.micro_batches=4 has parts of data.batch_size",
    lightning.StochasticWeightAveraging: "callbacks=average keeps a mean of the weights",
    lightning.WeightAveraging: "callbacks=average keeps a mean of the weights",
}
"""Callbacks that change Lightning's optimizer step, which has no part here -> what to use instead."""


def _check_finite(name: str, node: Spec) -> None:
    """Raise ConfigError where a number is NaN or infinite: torch's optimizers take such rates, SGD even NaN."""
    for key, value in flatten(node):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{name}.{key} must be finite, got {number}")


def _check_callbacks(callbacks: Mapping[str, Any], model: Model) -> None:
    """Raise ConfigError where one is not a callback, cannot work here or has nothing to monitor, or where two would
    keep their state in one place."""
    first: dict[str, str] = {}
    for name, callback in callbacks.items():
        if not isinstance(callback, lightning.Callback):
            raise ConfigError(f"callbacks.{name}: a {type(callback).__name__} is no lightning.pytorch.Callback")
        for kind, remedy in _WITHOUT_LIGHTNINGS_STEP.items():
            if isinstance(callback, kind):
                raise ConfigError(f"callbacks.{name}: a {kind.__name__} is for steps that Lightning takes; {remedy}")
        if not isinstance(callback, Checkpoint | EarlyStopping):
            continue
        if (other := first.setdefault(callback.state_key, name)) != name:
            differ = "filename must differ" if isinstance(callback, Checkpoint) else "one of them must go"
            raise ConfigError(f"callbacks.{other} and callbacks.{name} are both {callback.state_key}: {differ}")
        if isinstance(callback, EarlyStopping):
            callback.check_monitor(model)


def _try(key: str, node: Spec, *given: Any) -> Any:
    """Build a node whose object is needed only later, so that errors show now."""
    try:
        return build(node, *given)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"{key}: {one_line(error)} [{node['_target_']}]") from error
