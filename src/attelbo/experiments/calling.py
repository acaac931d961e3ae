"""``attelbo.train``: what the command does, for programs and notebooks."""

from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.configuration import check, compose


def train(*words: str) -> run.Outcome:
    """See :func:`attelbo.train`."""
    composed = compose("train", words)
    check(composed)
    if composed.config["trainer"]["replicas"] > 1:
        raise ConfigError("trainer.replicas must be 1: one call is one run; the command trains several")
    outcome = run.train(composed.config, list(words), composed.choices, None)
    if outcome.stopped_by is not None:
        raise outcome.stopped_by
    return outcome
