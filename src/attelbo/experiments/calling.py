"""Commands for programs and notebooks: ``attelbo.train``, and the untrained model that it would begin with."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from attelbo.data import ResidentDataModule
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.assembly import assemble
from attelbo.experiments.configuration import Composition, check, compose
from attelbo.experiments.quoting import with_letters
from attelbo.models import Model


def train(*words: str) -> run.Outcome:
    """See :func:`attelbo.train`."""
    composed = _composed(words)
    if composed.config["trainer"]["replicas"] > 1:
        raise ConfigError("trainer.replicas must be 1: one call is one run; the command trains several")
    with _isolated_randomness():
        outcome = run.train(composed.config, list(words), composed.choices, None)
    if outcome.stopped_by is not None:
        raise outcome.stopped_by
    return outcome


def untrained(*words: str) -> tuple[Model, ResidentDataModule]:
    """The model that ``attelbo train`` would begin with, given these words, and its data, as in
    ``untrained("model=gpt", "data=reference_text", "model.dim=64")``. Nothing is written, and the caller's random
    generators stay as they are.

    Raises:
        UserError: a word, or the configuration that they compose, is wrong.
    """
    config = _composed(words).config
    with _isolated_randomness():
        return assemble(config)


@contextmanager
def _isolated_randomness() -> Iterator[None]:
    """Restore the random generators of Python, NumPy and torch at the end."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _composed(words: Sequence[str]) -> Composition:
    if odd := [word for word in words if not isinstance(word, str)]:
        raise ConfigError(f"each word is a string of its own, such as 'model.latent_dim=8'; got {odd[0]!r}")
    if {"-m", "--multirun"} & set(words):
        raise ConfigError("-m: one call is one run; in a loop over them, or by the command, there are several")
    composed = compose("train", list(map(with_letters, words)))
    check(composed)
    return composed
