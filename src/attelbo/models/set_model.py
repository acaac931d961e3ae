"""Models of sets: a permutation-invariant network, and a head that interprets its outputs.

    x -- network --> outputs -- head --> loss

Source: Lee et al. 2019, "Set Transformer", sections 5.1 (the largest number of a set) and 5.3 (amortized clustering:
the parameters of a mixture from its points, in one pass).

Shapes: B sets, N elements, D numbers of an element, O outputs, F numbers of each, K components.
Units: those of y for errors, nats per point for densities.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention import Padding
from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_choice, check_positive
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent.arithmetic import LOG_2PI, full_precision
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Model, Terms, compute_and_reset

RegressionLoss = Literal["absolute", "squared"]


class SetHead(ABC):
    """The interpretation and the loss of the outputs (B, O, F) of a network.

    A subclass that names ``in_features`` (D) in its constructor is given it.
    """

    n_outputs: int
    """O."""
    out_features: int
    """F."""
    measures: Sequence[Measure]
    """How its terms are shown; their keys are the terms' names."""

    @abstractmethod
    def terms(self, outputs: Tensor, x: Tensor, y: Tensor, there: Tensor) -> Terms:
        """For each set (B,): ``loss``, which is minimized, and further measures.

        Args:
            outputs: (B, O, F).
            x: the sets (B, N, D).
            y: a number for each, (B,).
            there: which elements are no padding, (B, N).
        """


class Regression(SetHead):
    """A number for each set, an estimate of y.

    Args:
        loss: the absolute error, as in the paper, or its square.

    Raises:
        ValueError: no such loss.
    """

    n_outputs = 1
    out_features = 1

    def __init__(self, loss: RegressionLoss = "absolute") -> None:
        check_choice("loss", loss, RegressionLoss)
        self.loss = loss
        self.measures = (
            Measure("mae", "absolute error", "mean over sets", 4, better="less"),
            Measure("loss", "loss", f"mean {loss} error", 4, better="less"),
        )

    def terms(self, outputs: Tensor, x: Tensor, y: Tensor, there: Tensor) -> Terms:
        error = (full_precision(outputs).flatten() - y).abs()
        return {"loss": error.square() if self.loss == "squared" else error, "mae": error}


class Mixture(NamedTuple):
    """Mixtures of normal distributions, one for each set, with independent dimensions."""

    log_weights: Tensor
    """(B, K)."""
    means: Tensor
    """(B, K, D)."""
    stds: Tensor
    """(B, K, D)."""

    def joint(self, x: Tensor) -> Tensor:
        """log p of points x (B, N, D) and the component that each comes from: (B, N, K), nats."""
        distance = (x.unsqueeze(2) - self.means.unsqueeze(1)) / self.stds.unsqueeze(1)  # (B, N, K, D)
        normal = -0.5 * (distance.square() + LOG_2PI) - self.stds.log().unsqueeze(1)
        return self.log_weights.unsqueeze(1) + normal.sum(-1)

    def log_density(self, x: Tensor) -> Tensor:
        """log p of points x (B, N, D): (B, N), nats."""
        return self.joint(x).logsumexp(-1)


class Clustering(SetHead):
    """The mixture that a set of points comes from: weights by a softmax, standard deviations by a softplus.

    ``log_density`` is the mean over the points of a set, then over sets; ``gap`` is y, that of the true mixture, minus
    it.

    Args:
        in_features: D.
        n_components: K.
        smallest_std: added to each standard deviation.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, in_features: int, n_components: int = 4, smallest_std: float = 1e-3) -> None:
        check_at_least(1, n_components=n_components)
        check_positive(smallest_std=smallest_std)
        self.n_outputs = n_components
        self.out_features = 1 + 2 * in_features
        self.smallest_std = smallest_std
        self.measures = (
            Measure("log_density", "log-density", "nats per point", 4, better="more"),
            Measure("gap", "gap", "nats per point below the true mixtures", 4, better="less"),
        )

    def mixture(self, outputs: Tensor) -> Mixture:
        """The mixture with the outputs (B, K, 1 + 2 D) as its parameters."""
        weights, means, stds = full_precision(outputs).split([1, *[outputs.shape[-1] // 2] * 2], -1)
        return Mixture(weights.squeeze(-1).log_softmax(-1), means, F.softplus(stds) + self.smallest_std)

    def terms(self, outputs: Tensor, x: Tensor, y: Tensor, there: Tensor) -> Terms:
        x = x.masked_fill(~there.unsqueeze(-1), 0.0)
        density = (self.mixture(outputs).log_density(x) * there).sum(1) / there.sum(1)
        return {"loss": -density, "log_density": density, "gap": y - density}


class SetModel(Model):
    """A network of sets and its head.

    Args:
        network: x (B, N, D) and a mask -> outputs (B, O, F).
        head: their interpretation.
        optimizer: its configuration.
        scheduler: the learning rate's.
    """

    def __init__(self, network: nn.Module, head: SetHead, optimizer: Spec, scheduler: Spec) -> None:
        super().__init__(optimizer, scheduler)
        self.network = network
        self.head = head
        self.means = SampleMean(["loss", *(measure.key for measure in head.measures if measure.key != "loss")])

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """Outputs (B, O, F) of sets (B, N, D); ``there`` (B, N): which elements are no padding, all if None."""
        return self.network(x, None if there is None else Padding(there))

    def losses(self, batch: Batch) -> Terms:
        return {name: values.mean() for name, values in self._terms(batch).items()}

    def predicted(self, batch: Batch) -> Tensor:
        """Outputs (B, O, F), which the head reads."""
        return self(batch.x, _there(batch))

    def _terms(self, batch: Batch) -> Terms:
        """For each set, (B,)."""
        assert batch.y is not None, "sets without y"
        there = _there(batch)
        outputs = self(batch.x, there)
        every = batch.x.new_ones(batch.x.shape[:2], dtype=torch.bool) if there is None else there
        terms = self.head.terms(outputs, batch.x, batch.y, every)
        return {name: values if name == "loss" else values.detach() for name, values in terms.items()}

    def evaluation_step(self, batch: Batch) -> None:
        self.means.update(self._terms(batch))

    def evaluation_results(self) -> Terms:
        return compute_and_reset(self.means)

    @property
    def measures(self) -> Sequence[Measure]:
        return self.head.measures


def _there(batch: Batch) -> Tensor | None:
    """Which elements of the sets are no padding, (B, N); None: all."""
    return None if batch.segments is None else batch.segments >= 0


def build_set_model(data: DataSpec, network: Spec, head: Spec, optimizer: Spec, scheduler: Spec) -> SetModel:
    """Compose a model of sets from its configuration.

    Raises:
        ConfigError: the data are no sets with a number for each, or an argument is out of range.
    """
    if data.kind != "set" or data.target is None or data.target.shape != ():
        raise ConfigError(f"model: this is a model of sets with a number for each, and {data.name} has {data.kind}")
    in_features = data.shape[-1]
    made = part("head", head, in_features=in_features)
    return SetModel(
        part(
            "network",
            network,
            in_features=in_features,
            n_outputs=made.n_outputs,
            out_features=made.out_features,
        ),
        made,
        optimizer=optimizer,
        scheduler=scheduler,
    )
