"""What an objective is: evidence terms -> the loss to minimize.

Shapes: as in ``attelbo.latent.evidence``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from attelbo.latent.distributions import Distribution
from attelbo.latent.evidence import Evidence, Generative
from attelbo.latent.schedules import Schedule


@dataclass(frozen=True)
class Turn:
    """One of several optimizer steps that an objective takes on each minibatch, each with its own optimizer."""

    loss: Callable[[Evidence], Tensor]
    moves: Literal["model", "inference", "generation", "objective"]
    """Whose parameters it updates: all but those of the objective; those of encoder and posterior; of decoder,
    likelihood and prior; of the objective itself, such as a discriminator."""
    name: str = ""
    """Its loss is logged as ``<name>_loss``; the main turn, that of ``forward``, has none."""
    decodes: bool = True
    """Whether it reads the decoder's output; if not, the decoder need not run, and log p(x|z) may be NaN. If so, and if
    it updates a side of the model, the model adds its own terms to the loss: a penalty of q, an extra term."""
    betas: tuple[float, float] | None = None
    """Of its Adam, in place of those in the configuration: between two players, past gradients are soon out of date."""
    rate: float = 1.0
    """Its learning rate, as a multiple of the configured one, whose schedule it follows."""

    @property
    def prefix(self) -> str:
        """The prefix of the names of its terms."""
        return f"{self.name}_" if self.name else ""


class Objective(nn.Module, ABC):
    """Evidence -> scalar loss: the mean over the batch, in nats.

    The model passes to subclasses what their constructors name: ``latent_shape`` (E), ``data_shape`` (C, ...).
    """

    n_samples: int
    """K, samples of z drawn for each x in training and validation."""
    needs_log_weights: ClassVar[bool] = False
    """Whether ``Evidence.log_weights`` must be there."""
    stops_posterior: ClassVar[bool] = False
    """Whether, in the log-weights, log q(z|x) sends gradients to the parameters of q through z only."""
    needs_generative: ClassVar[bool] = False
    """Whether ``Evidence.x`` and ``generative`` must be there: models with several layers have neither."""
    needs_eta: ClassVar[bool] = False
    """Whether it needs the decoder's output for z alone: ``Evidence.eta`` must be there, which it is not for texts."""
    needs_density: ClassVar[bool] = True
    """Whether it needs a KL or log-weights, which do not exist where q(z|x) is a point."""
    watched: Literal["elbo", "loss"] | None = "elbo"
    """The validation metric that selects the best epoch: the bound (the loss, where there is none), the loss, or None:
    the last epoch, where no metric is meaningful, as in an adversarial game."""
    posteriors: ClassVar[tuple[type[Distribution], ...]] = (Distribution,)
    """The q(z|x) that it is defined for."""
    generation_rate: Schedule | None = None
    """The factor of the learning rate of decoder, likelihood and prior, if they have their own."""

    def at_start(self, n_rows: int) -> None:
        """Called before the first step of a training, with the number of training rows."""

    def at_step(self, step: int, total_steps: int) -> None:
        """Called before optimizer step ``step`` of ``total_steps``: schedules set their weights here.

        A weight that changes lives in a buffer and is written in place, so that a captured or
        compiled step reads the new value.
        """

    def attach(self, generative: Generative) -> None:
        """Called once with the generative side of the model: for objectives that modify it."""

    def turns(self) -> Sequence[Turn]:
        """The optimizer steps on each minibatch, in this order; none: one optimizer minimizes ``forward`` over all
        parameters."""
        return ()

    @abstractmethod
    def forward(self, evidence: Evidence) -> Tensor: ...


def log_weights_of(evidence: Evidence) -> Tensor:
    """The log-weights (K, B).

    Raises:
        ValueError: there are none.
    """
    if evidence.log_weights is None:
        raise ValueError("evidence has no log_weights: ask the model for them, as needs_log_weights says")
    return evidence.log_weights


def generative_of(evidence: Evidence) -> Generative:
    """The generative side of the model.

    Raises:
        ValueError: it is not there.
    """
    if evidence.generative is None:
        raise ValueError("evidence has no generative: this objective is for models that give it, with one layer of z")
    return evidence.generative


def prior_samples(evidence: Evidence) -> Tensor:
    """As many samples of the prior as there are of q, (K B, *E), and of the same labels: where p(z|y) differs between
    labels, their mixture is that of the batch.

    Raises:
        ValueError: the model is not there.
    """
    k, rows = evidence.z.shape[:2]
    y = None if evidence.y is None else evidence.y.expand(k, *evidence.y.shape).flatten(0, 1)
    return generative_of(evidence).sample_prior(k * rows, y)
