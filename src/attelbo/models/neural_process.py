"""Neural processes: models of functions, of which some points are known and others are to be predicted.

    context (x_C, y_C) -- paths --> features of each target --.
                       -- mean --> q(z|C) -- sample --> z ----+-- decoder --> p(y|x, z, C)
    context and targets -- mean --> q(z|C, T)

Two choices make four models: whether targets attend to the context, and whether there is a latent variable.

    |                    | no latent variable | latent variable |
    |---|---|---|
    | mean of the context | CNP               | NP              |
    | attention           | CANP              | ANP             |

Source: Garnelo et al. 2018, "Conditional Neural Processes" (arXiv:1807.01613) and "Neural Processes"
(arXiv:1807.01622), eq. 8; Kim et al. 2019, "Attentive Neural Processes" (arXiv:1901.05761), eq. 3.

The prior of z is q(z|C), so the evidence is that of all points of a function given its context, which as in Kim et al.
is among the targets, and the ELBO is a bound on it:

    log p(y|x, C) >= E_q(z|C,T)[sum_i log p(y_i|x_i, z, C)] - KL(q(z|C, T) || q(z|C))

Without a latent variable there is nothing to bound: the ELBO is log p(y|x, C) itself. The number to compare with
published ones is ``target_ll``, the predictive log-likelihood of each target given the context.

Shapes: K samples, B functions, N points, X numbers of a place and Y of a value, D dimensions of z.
Units: nats, summed over the points of a function; ``target_ll`` and ``context_ll`` are means over them.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.checks import check_at_least
from attelbo.data.batch import CONTEXT, TARGET, Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import DiagonalNormal, Evidence, HeteroscedasticNormal, Objective, normal_kl
from attelbo.latent.arithmetic import full_precision
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Terms, compute_and_reset
from attelbo.models.evidence_model import EvidenceModel
from attelbo.models.parts import check_objective_of_terms, model_arguments
from attelbo.networks import AttentivePath, MeanPath, PointDecoder, Summary

SMALLEST_LATENT_STD = 0.1
"""The standard deviation of z is between this and one, as in the authors' code."""


class Points(NamedTuple):
    """The points of functions, zeros in padding."""

    x: Tensor
    """(B, N, X)."""
    y: Tensor
    """(B, N, Y)."""
    context: Tensor
    """Which of them are known, (B, N), bool."""
    target: Tensor
    """Which are to be predicted, (B, N), bool."""

    @classmethod
    def of(cls, batch: Batch) -> "Points":
        """Those of a batch."""
        assert batch.y is not None, "functions without values"
        assert batch.segments is not None, "functions without a context"
        nothing = (batch.segments < 0).unsqueeze(-1)
        # Neither a weight of zero nor a gradient of zero excludes NaN.
        x, y = (values.masked_fill(nothing, 0.0) for values in (batch.x, batch.y))
        return cls(x, y, batch.segments == CONTEXT, batch.segments == TARGET)

    @property
    def there(self) -> Tensor:
        """Context and targets, (B, N), bool."""
        return self.context | self.target

    @property
    def both(self) -> Tensor:
        """Places and values, (B, N, X + Y)."""
        return torch.cat([self.x, self.y], -1)


class NeuralProcess(EvidenceModel):
    """A neural process. See :func:`build_neural_process` for how a configuration becomes one.

    Args:
        paths: from the context to features of the targets.
        latent: the network of the parameters of q(z|.); None: there is no z.
        decoder: from a place, features and z to eta.
        likelihood: p(y|x, z, C) of one value.
        objective: the loss as a function of the evidence terms.
        n_latent: D; 0 where there is no z.
        n_predictions: samples of q(z|C) in the prediction of targets.
        optimizer: its configuration.
        scheduler: the learning rate's.
    """

    has_dimensions: ClassVar[bool] = False
    likelihood: HeteroscedasticNormal

    def __init__(
        self,
        paths: Sequence[nn.Module],
        latent: Summary | None,
        decoder: PointDecoder,
        likelihood: HeteroscedasticNormal,
        objective: Objective,
        n_latent: int,
        n_predictions: int,
        optimizer: Spec,
        scheduler: Spec,
    ) -> None:
        super().__init__(likelihood, objective, n_latent, optimizer, scheduler)
        self.paths = nn.ModuleList(paths)
        self.latent = latent
        self.decoder = decoder
        self.n_predictions = n_predictions if n_latent else 1  # more would be identical
        self.predictions = SampleMean(["target_ll", "context_ll"])

    # -- from a batch to its evidence ---------------------------------------------------------------

    def latents(self, points: Tensor, *contexts: Tensor) -> list[DiagonalNormal]:
        """q(z|.) given the points (B, N, X + Y) of each of several contexts (B, N), bool."""
        if self.latent is None:
            nothing = points.new_zeros(len(points), 0)
            return [DiagonalNormal(nothing, nothing)] * len(contexts)
        return [normal_of(parameters) for parameters in self.latent(points, *contexts)]

    def features(self, points: Tensor, context: Tensor, places: Tensor) -> list[Tensor]:
        """The features of targets at ``places`` (B, M, X), given points (B, N, X + Y) and the context (B, N)."""
        return [path(points, context, places) for path in self.paths]

    def log_prob(self, functions: Points, features: Sequence[Tensor], z: Tensor) -> Tensor:
        """log p(y_i|x_i, z, C) of each point, (K, B, N), zero where there is none."""
        eta = self.decoder(functions.x, features, z)  # (K, B, N, 2 Y)
        log_p = self.likelihood.log_prob(eta.flatten(1, 2), functions.y.flatten(0, 1))
        return log_p.unflatten(1, functions.there.shape) * functions.there

    def evidence_of(self, batch: Batch) -> Evidence:
        functions = Points.of(batch)
        points = functions.both
        prior, posterior = self.latents(points, functions.context, functions.there)
        z, log_q = posterior.rsample_with_log_prob(self.objective.n_samples)
        features = self.features(points, functions.context, functions.x)
        log_p = self.log_prob(functions, features, z).sum(-1)  # (K, B)
        return Evidence(
            log_likelihood=log_p,
            kl=normal_kl(posterior, prior).sum(-1, keepdim=True),
            z=z,
            posterior=posterior,
            log_weights=log_p + prior.log_prob(z) - log_q,
        )

    @property
    def given(self) -> str:
        return "the context"

    @property
    def equal_weights(self) -> bool:
        return not self.n_latent

    def inference_parameters(self) -> list[nn.Parameter]:
        return [] if self.latent is None else [*self.latent.parameters()]

    @torch.no_grad()
    def weight_sampler_of(self, batch: Batch) -> Callable[[int], Tensor]:
        functions = Points.of(batch)
        points = functions.both
        prior, posterior = self.latents(points, functions.context, functions.there)
        features = self.features(points, functions.context, functions.x)

        @torch.no_grad()
        def draw(n_samples: int) -> Tensor:
            z, log_q = posterior.rsample_with_log_prob(n_samples)
            return self.log_prob(functions, features, z).sum(-1) + prior.log_prob(z) - log_q

        if not self.n_latent:  # all samples are the same
            weights = draw(1)
            return lambda n_samples: weights.expand(n_samples, -1)
        return draw

    # -- predictions: from the context alone ------------------------------------------------------------

    def predict(self, context: Batch, places: Tensor, n_samples: int) -> tuple[Tensor, Tensor]:
        """Predictions at ``places`` (B, M, X), for K samples of z.

        Args:
            context: functions, of which only the points of the context are read.
            places: where.
            n_samples: K, samples of q(z|C).

        Returns:
            Mean and standard deviation of p(y|x, z, C), (K, B, M, Y), in data units.
        """
        functions = Points.of(context)
        (prior,) = self.latents(functions.both, functions.context)
        features = self.features(functions.both, functions.context, places)
        return self.likelihood.mean_std(self.decoder(places, features, prior.rsample(n_samples)))

    def predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(y|x, C) at the places of a batch, (B, N, Y), z averaged out by samples."""
        mean, std = self.predict(batch, Points.of(batch).x, self.n_predictions)  # (K, B, N, Y)
        return mean.mean(0), (std.square().mean(0) + mean.var(0, correction=0)).sqrt()

    def predictive(self, functions: Points) -> Tensor:
        """log p(y_i|x_i, C) of each point by itself, (B, N), nats: z is marginalized by samples of q(z|C), for each
        point separately, as in the re-measured table; zero where there is no point."""
        points = functions.both
        (prior,) = self.latents(points, functions.context)
        features = self.features(points, functions.context, functions.x)
        log_p = self.log_prob(functions, features, prior.rsample(self.n_predictions))
        return log_p.logsumexp(0) - math.log(self.n_predictions)

    # -- evaluation ---------------------------------------------------------------------------------

    def evaluation_step(self, batch: Batch) -> None:
        super().evaluation_step(batch)
        functions = Points.of(batch)
        log_p = self.predictive(functions)
        of_targets, of_context = (
            (log_p * points).sum(1) / points.sum(1) for points in (functions.target, functions.context)
        )
        self.predictions.update({"target_ll": of_targets, "context_ll": of_context})

    def evaluation_results(self) -> Terms:
        return super().evaluation_results() | compute_and_reset(self.predictions)

    @property
    def measures(self) -> Sequence[Measure]:
        own = (
            Measure("target_ll", "target log-likelihood", "nats per point, given the context", 4, better="more"),
            Measure("context_ll", "context log-likelihood", "nats per point", 4, better="more"),
        )
        of_z = () if self.n_latent else ("kl", "active_units")
        return (*own, *(measure for measure in super().measures if measure.key not in of_z))


def normal_of(parameters: Tensor) -> DiagonalNormal:
    """Mean, and a standard deviation between 0.1 and 1, from parameters (B, 2 D)."""
    mean, scale = full_precision(parameters).chunk(2, -1)
    std = SMALLEST_LATENT_STD + (1 - SMALLEST_LATENT_STD) * scale.sigmoid()
    return DiagonalNormal(mean, std.log())


def build_neural_process(
    data: DataSpec,
    objective: Spec,
    heads: int | None,
    latent_dim: int | None,
    dim: int,
    decoder_layers: int,
    smallest_std: float,
    n_predictions: int,
    optimizer: Spec,
    scheduler: Spec,
) -> NeuralProcess:
    """Compose a neural process from its configuration.

    Without a latent variable, a second path averages the context, so that all four models are equally large.

    Args:
        data: functions.
        objective: elbo, or iwae.
        heads: of attention; None: the context is averaged.
        latent_dim: D; None: there is no latent variable.
        dim: features of a point, units of each layer.
        decoder_layers: linear layers of the decoder.
        smallest_std: the lower bound of the standard deviation of a value.
        n_predictions: samples of q(z|C) for ``target_ll``.
        optimizer: of all parameters.
        scheduler: of the learning rate.

    Raises:
        ConfigError: the data are not functions, an argument is out of range, or the objective needs more than a neural
            process has.
    """
    if data.kind != "function" or data.target is None:
        raise ConfigError(f"model: a neural process is one of functions, and {data.name} has {data.kind}; data=gp_rbf")
    place, value = data.shape[-1], data.target.shape[-1]
    point, latent = place + value, latent_dim or 0
    of_z = {"latent_shape": (latent,)} if latent else {}
    o = part("objective", objective, **of_z, data_shape=data.shape)
    check_objective_of_terms(o, "a neural process")
    if not latent and o.turns():
        raise ConfigError(
            f"model/objective: {type(o).__name__} trains a network on z, and without model.latent_dim there is no z; "
            "model/objective=elbo does without"
        )
    with model_arguments():
        check_at_least(1, dim=dim, n_predictions=n_predictions, latent_dim=latent_dim)
        check_at_least(2, decoder_layers=decoder_layers)
        likelihood = HeteroscedasticNormal((value,), smallest_std)
        first = MeanPath(point, dim, None) if heads is None else AttentivePath(place, point, dim, heads)
        paths = [first] if latent else [first, MeanPath(point, dim, heads)]
        decoder = PointDecoder(place, [dim] * len(paths), latent, dim, likelihood.parameter_shape[0], decoder_layers)
        summary = Summary(point, dim, 2 * latent, heads) if latent else None
    return NeuralProcess(paths, summary, decoder, likelihood, o, latent, n_predictions, optimizer, scheduler)
