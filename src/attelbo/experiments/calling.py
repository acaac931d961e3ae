"""Commands for programs and notebooks: ``attelbo.train``, and what it would begin with."""

from collections.abc import Sequence

from attelbo.data import ResidentDataModule
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.assembly import assemble
from attelbo.experiments.configuration import Composition, check, compose
from attelbo.models import Model


def train(*words: str) -> run.Outcome:
    """See :func:`attelbo.train`."""
    composed = _composed(words)
    if composed.config["trainer"]["replicas"] > 1:
        raise ConfigError("trainer.replicas must be 1: one call is one run; the command trains several")
    outcome = run.train(composed.config, list(words), composed.choices, None)
    if outcome.stopped_by is not None:
        raise outcome.stopped_by
    return outcome


def untrained(*words: str) -> tuple[Model, ResidentDataModule]:
    """The model that ``attelbo train`` would begin with after these words, and its data; nothing is written. Such as
    ``untrained("model=gpt", "data=reference_text", "model.dim=64")``.

    Raises:
        UserError: a word, or what is composed of all of them, is wrong.
    """
    return assemble(_composed(words).config)


def _composed(words: Sequence[str]) -> Composition:
    composed = compose("train", words)
    check(composed)
    return composed
