"""``attelbo fit-prior``: the second stage, a prior for a trained autoencoder. It is a run like any other.

Where a configuration is given in place of a run (``experiment=digits/autoencoder_vq``), the first stage is trained too,
or found. The same command again does nothing twice: what is done is found, what was interrupted is resumed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attelbo.building import locate
from attelbo.checking import Part
from attelbo.checks import check_at_least
from attelbo.data.moving import moved, where_now
from attelbo.errors import ConfigError, UserError
from attelbo.experiments import run as runs
from attelbo.experiments.assembly import verify
from attelbo.experiments.configuration import Composition, check_again
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.settings import Which
from attelbo.experiments.trained import Accelerator
from attelbo.files import read_config
from attelbo.latent import Distribution
from attelbo.models import checkpoint_of

SHARED = {"seed": "seed", "accelerator": "trainer.accelerator", "data_dir": "paths.data_dir"}
"""Keys of fit-prior that its first stage has too, and what they are called there."""

SECOND_STAGE = "attelbo.models.build_fitted_prior"
FIRST_STAGES = ("attelbo.models.build_vae", SECOND_STAGE)


def fit_prior(
    run: str,
    prior: Part,
    epochs: int,
    optimizer: Part,
    scheduler: Part,
    checkpoint: Which,
    seed: int,
    ckpt: str | None,
    accelerator: Accelerator,
    data_dir: str | None = None,
) -> int:
    """Fit a prior to the encodings of a finished run's training data, all else frozen, and evaluate the two together.

    The result is a run directory of its own, ``<name>-<prior>`` beside that of the first stage: sampled from, evaluated
    and compared like every other.

    Args:
        run: the first stage's run directory, or a folder, for its newest run; second stages do not count.
        prior: what is fitted.
        epochs: over the training data.
        optimizer: of the prior.
        scheduler: its learning rate's.
        checkpoint: which weights of the first stage.
        seed: of the prior's initial weights and of the samples of q(z|x).
        ckpt: ``auto`` goes on with the run of this configuration, or finds it done; None begins a new one; or the path
            of a checkpoint that a new one begins with.
        accelerator: where to compute.
        data_dir: where the data are now, if not where they were.

    Returns:
        The exit code: 0 done, 1 failed, 143 stopped by SIGTERM after the state was saved.

    Raises:
        UserError: not a run directory, no checkpoint in it, or not an autoencoder with a single prior.
        ConfigError: the prior does not fit the posterior, or has nothing to fit.
    """
    directory = RunDirectory.find(Path(run), lambda found: _target(read_config(found.path)) != SECOND_STAGE)
    config = read_config(directory.path)
    check_again(config, directory.path / "config.yaml")
    _check_first(config, str(directory.path))
    weights = checkpoint_of(directory.path, checkpoint)
    config = second_stage(
        config, weights, prior, epochs, optimizer, scheduler, seed, ckpt, accelerator=accelerator, data_dir=data_dir
    )
    with where_now():
        return runs.train(config, [f"run={directory.path}"], {}, None).exit_code


def fit_both(first: Composition, arguments: Mapping[str, Any]) -> int:
    """Train the first stage, or find it, and fit a prior to it.

    Args:
        first: the composition of ``attelbo train``, with ``ckpt=auto``.
        arguments: those of :func:`fit_prior` but ``run``.

    Returns:
        The exit code; that of the first stage, if it is not done.

    Raises:
        ConfigError: either stage cannot be built; nothing has been written.
    """
    config = first.config
    if config["trainer"]["replicas"] > 1:
        raise ConfigError("trainer.replicas must be 1: the prior is fitted to one first stage")
    _check_first(config, config["name"])
    verify(config)
    of_fit = {key: value for key, value in arguments.items() if key != "checkpoint"}
    second = second_stage(config, Path("weights"), **of_fit)
    verify(second)
    callbacks = [node for node in config["callbacks"].values() if node and node["_target_"].endswith(".Checkpoint")]
    if not {node.get("filename", "last") for node in callbacks} & {arguments["checkpoint"], "last"}:
        raise ConfigError("callbacks: the second stage begins with a checkpoint of the first; callbacks=checkpoint")
    outcome = runs.train(config, list(first.overrides), first.choices, None)
    return outcome.exit_code or fit_prior(run=str(outcome.run_dir), **arguments)


def shared_words(words: Sequence[str]) -> list[str]:
    """The words of fit-prior that are for its first stage too, as ``attelbo train`` takes them."""
    named = [(SHARED.get(word.partition("=")[0]), word.partition("=")[2]) for word in words]
    return [f"{key}={value}" for key, value in named if key is not None]


def _check_first(config: dict[str, Any], what: str) -> None:
    """Raise UserError unless the model has a prior that can be fitted afterwards."""
    if (target := _target(config)) not in FIRST_STAGES:
        raise UserError(f"{what}: its model, {target}, has no prior that could be fitted afterwards")


def _target(config: dict[str, Any]) -> str:
    return config["model"]["_target_"]


def second_stage(
    first: dict[str, Any],
    weights: Path,
    prior: Part,
    epochs: int,
    optimizer: Part,
    scheduler: Part,
    seed: int,
    ckpt: str | None = None,
    accelerator: str = "auto",
    data_dir: str | None = None,
) -> dict[str, Any]:
    """The configuration of the first stage with another prior, fitted to it; arguments as of :func:`fit_prior`."""
    check_at_least(1, ConfigError, epochs=epochs)
    model = {**first["model"], "_target_": SECOND_STAGE, "prior": dict(prior), "weights": str(weights)}
    if getattr(locate(model["posterior"]["_target_"]), "distribution", Distribution).is_guided():
        model["guide"] = first["model"].get("guide", first["model"]["prior"])
    trainer = {**first["trainer"], "max_epochs": epochs, "max_steps": -1, "replicas": 1}
    if accelerator != "auto":
        trainer["accelerator"] = accelerator
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", prior["_target_"].rpartition(".")[2]).lower()
    return {
        **first,
        "name": f"{first['name']}-{name}",
        "model": model,
        "data": moved(first["data"], data_dir),
        "trainer": trainer,
        "optimizer": dict(optimizer),
        "scheduler": dict(scheduler),
        "seed": seed,
        "ckpt": ckpt,
        "init": {},
        "evaluation": {**first["evaluation"], "compress": False},  # bits back is for the prior of the first stage
    }
