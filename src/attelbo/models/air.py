"""Attend, infer, repeat: an image is explained by a variable number of objects, inferred one after the other.

Eslami et al. 2016, "Attend, Infer, Repeat: Fast Scene Understanding with Generative Models", arXiv:1603.08575.

    for t = 1 .. T:  h = LSTM(h, [embedding of x, z_{t-1}])
        present_t ~ Bernoulli(h) if t = 1 or present_{t-1}      prior: Bernoulli(p), a geometric number of objects
        where_t ~ N(h): size and center                         prior: normal
        what_t ~ N(encoder(x cut out at where_t))               prior: N(0, I)
    E[x|z] = sum_t present_t paste(sigmoid(decoder(what_t)), where_t)

The gradient of the presences is a score-function estimate, with a baseline that is learned from x and the state (Mnih &
Gregor 2014, "Neural Variational Inference and Learning in Belief Networks", section 2.3); all else is reparametrized.

Ours differs: the learning signal of a step has only those terms that depend on it, and the KL of a presence is exact
given those before it; presences are not trained until objects are recognizable; sizes are sigmoids of normal variables,
so that they are positive; q(where) is initialized to the prior. Public implementations let the prior of the presences
fall to 1e-7 in training, to keep objects from being split into several; here a cost for each object is added to the
loss, and the bound has one fixed prior.

Shapes: K samples, B batch, N = K B rows, T steps, D dimensions of a what, (C, H, W) image, n x n of a glimpse. Flat,
a z is (present, where, what) of each step, T (4 + D) numbers, zeros where there is no object. Units: nats.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention.glimpses import paste_patch
from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_below_one, check_positive, check_repetitions
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import (
    ELBO,
    Bernoulli,
    DiagonalNormal,
    Evidence,
    Layered,
    Likelihood,
    Objective,
    StandardNormal,
    normal_kl,
)
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.likelihoods.location_scale import LocationScale
from attelbo.latent.scheduled import Scheduled
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Terms
from attelbo.models.hierarchy import repeat
from attelbo.models.latent_variable import LatentVariableModel
from attelbo.models.object_finder import CENTERS, SAMPLES, WHERE, ObjectFinder, Step, flat, place_of
from attelbo.models.parts import check_images, likelihood_of, model_arguments
from attelbo.networks import Decoder

EPSILON = 1e-3
"""The least distance of a Bernoulli's mean from 0 and 1: a pixel that no object covers may still be 1."""


class AttendInferRepeat(LatentVariableModel):
    """See :func:`build_air` for how a configuration becomes one."""

    def __init__(
        self,
        finder: ObjectFinder,
        decoder: Decoder,
        likelihood: Likelihood,
        objective: Objective,
        presence: float,
        cost: Scheduled,
        counted: bool,
        optimizer: Spec,
        scheduler: Spec,
    ) -> None:
        super().__init__(likelihood, objective, finder.steps * (1 + WHERE + finder.latent_dim), optimizer, scheduler)
        self.finder = finder
        self.decoder = decoder
        self.presence = presence
        self.cost = cost
        self.what_prior = StandardNormal((finder.latent_dim,))
        self.n_pixels = math.prod(likelihood.data_shape)
        self.findings = SampleMean(["count_accuracy"]) if counted else None

    def decode(self, z: Tensor) -> Tensor:
        """The likelihood's parameters eta (N, C, H, W) of flat z (N, T (4 + D))."""
        objects = z.unflatten(1, (self.finder.steps, -1)).flatten(0, 1)
        present, where, what = objects.split([1, WHERE, self.finder.latent_dim], 1)
        _, *size = self.likelihood.data_shape
        glimpses = full_precision(self.decoder(what)).sigmoid() * present[:, :, None, None]
        canvas = paste_patch(glimpses, place_of(where), (size[0], size[1])).unflatten(0, (-1, self.finder.steps)).sum(1)
        if isinstance(self.likelihood, Bernoulli):
            return canvas.clamp(EPSILON, 1 - EPSILON).logit()
        return canvas

    # -- from a batch to its evidence ------------------------------------------------------------------

    def evidence(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_samples: int = 1,
        *,
        log_weights: bool = False,
        stop_posterior: bool = False,
    ) -> Evidence:
        shape = n_samples, len(x)
        steps = self.finder(repeat(x, n_samples), SAMPLES)
        z = flat(steps).unflatten(0, shape)
        eta = self.decode(z.flatten(0, 1)).unflatten(0, shape)
        log_likelihood = self.likelihood.log_prob(eta, x)  # (K, B)
        kl = torch.stack([self._kl(step) for step in steps])  # (T, 3, N)
        costs = torch.stack([self.cost.value * step.reached * step.log_odds.sigmoid() for step in steps])  # (T, N)
        penalty = (costs.sum(0) + self._score(steps, log_likelihood.flatten(), kl, costs)).unflatten(0, shape).mean(0)
        by_kind = kl.sum(0).unflatten(1, shape).mean(1).T  # (B, 3)
        weights = log_likelihood + self._log_ratio(steps).unflatten(0, shape) if log_weights else None
        return Evidence(log_likelihood, by_kind, z, Layered(lambda: self.encode(x), penalty), weights)

    def _kl(self, step: Step) -> Tensor:
        """KL of a step given those before it: of presence, where and what, (3, N)."""
        log_p, log_not_p = self._log_prior()
        q = step.log_odds.sigmoid()
        present = q * (F.logsigmoid(step.log_odds) - log_p) + (1 - q) * (F.logsigmoid(-step.log_odds) - log_not_p)
        where = normal_kl(step.q_where, self.finder.where_prior(step.where)).sum(1)
        what = step.q_what.divergence_from_standard.sum(1)
        return torch.stack([step.reached * present, step.present * where, step.present * what])

    def _score(self, steps: Sequence[Step], log_likelihood: Tensor, kl: Tensor, costs: Tensor) -> Tensor:
        """Zeros (N,) whose gradient is that of the presences' score-function term and of the baseline's loss."""
        weight = self.objective.weight.value if isinstance(self.objective, ELBO) else 1.0
        present, where, what = (weight * kl.detach()).unbind(1)
        known = present + costs.detach()  # before the presence of the step is drawn
        behind = (known + where + what).flip(0).cumsum(0).flip(0) - known
        signals = log_likelihood.detach() - behind  # (T, N)
        total = torch.zeros_like(log_likelihood)
        for step, signal in zip(steps, signals, strict=True):
            log_q = -F.binary_cross_entropy_with_logits(step.log_odds, step.present, reduction="none")
            surprise = (signal - step.baseline) / self.n_pixels
            total = total + step.reached * (surprise.square() - (signal - step.baseline.detach()) * log_q)
        return total - total.detach()

    def _log_ratio(self, steps: Sequence[Step]) -> Tensor:
        """log p(z) - log q(z|x), (N,)."""
        log_p, log_not_p = self._log_prior()
        total = torch.zeros_like(steps[0].log_odds)
        for step in steps:
            presence = step.present * (log_p - F.logsigmoid(step.log_odds))
            absence = (1 - step.present) * (log_not_p - F.logsigmoid(-step.log_odds))
            where = _log_ratio(step.where, self.finder.where_prior(step.where), step.q_where)
            what = _log_ratio(step.what, self.what_prior, step.q_what)
            total = total + step.reached * (presence + absence) + step.present * (where + what)
        return total

    def _log_prior(self) -> tuple[float, float]:
        """log p(present) and log p(absent), given that the object before is present."""
        return math.log(self.presence), math.log1p(-self.presence)

    def at_step(self, step: int, total_steps: int) -> None:
        super().at_step(step, total_steps)
        self.cost.at_step(step, total_steps)
        self.finder.learning.at_step(step, total_steps)

    def inference_parameters(self) -> list[nn.Parameter]:
        return list(self.finder.parameters())

    # -- evaluation: the numbers of objects -----------------------------------------------------------

    def found_in(self, batch: Batch) -> Terms:
        assert batch.y is not None
        return {"count_accuracy": (self.count(batch.x) == batch.y).double()}

    @property
    def measures(self) -> Sequence[Measure]:
        return *super().measures, Measure("count_accuracy", "count accuracy", "of the images", 4, better="more")

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def count(self, x: Tensor) -> Tensor:
        """How many objects there are in x (n, C, H, W), (n,), int64."""
        return torch.stack([step.present for step in self.finder(x, CENTERS)]).sum(0).long()

    @torch.no_grad()
    def places(self, x: Tensor) -> Tensor:
        """Size and center, across and down, of the objects in x (n, C, H, W), (n, T, 3); NaN where there is none."""
        found = (torch.where(s.present[:, None] > 0, place_of(s.where), torch.nan) for s in self.finder(x, CENTERS))
        return torch.stack(list(found), 1)

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return flat(self.finder(x, CENTERS))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.generate(self.encode(x))

    @torch.no_grad()
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.decode(z))

    def imagine(self, n: int, y: Tensor | None = None) -> Tensor:
        like = self.finder.where_mean.new_zeros(n, self.finder.steps, 1 + WHERE + self.finder.latent_dim)
        present = (torch.rand_like(like[..., :1]) < self.presence).to(like).cumprod(1)
        noise = torch.randn_like(like[..., 1:])
        where = self.finder.where_mean + self.finder.where_log_std.exp() * noise[..., :WHERE]
        return self.decode((present * torch.cat([present, where, noise[..., WHERE:]], -1)).flatten(1))

    @torch.no_grad()
    def weight_sampler(self, x: Tensor, y: Tensor | None = None) -> Callable[[int], Tensor]:
        embedding = self.finder.embedding(x)

        @torch.no_grad()
        def draw(n_samples: int) -> Tensor:
            steps = self.finder(repeat(x, n_samples), SAMPLES, repeat(embedding, n_samples))
            log_likelihood = self.likelihood.log_prob(self.decode(flat(steps)).unflatten(0, (n_samples, len(x))), x)
            return log_likelihood + self._log_ratio(steps).view_as(log_likelihood)

        return draw


def _log_ratio(value: Tensor, p: DiagonalNormal | StandardNormal, q: DiagonalNormal) -> Tensor:
    """log p - log q of a value (N, E), (N,)."""
    return (p.log_prob(value.unsqueeze(0)) - q.log_prob(value.unsqueeze(0)))[0]


def build_air(
    data: DataSpec,
    encoder: Spec,
    decoder: Spec,
    likelihood: Spec,
    objective: Spec,
    latent_dim: int,
    hidden: int,
    steps: int,
    glimpse: int,
    presence: float,
    cost: Spec | float,
    object_size: float,
    size_std: float,
    spread: float,
    waiting: float,
    optimizer: Spec,
    scheduler: Spec,
) -> AttendInferRepeat:
    """Compose Attend, Infer, Repeat from its configuration.

    Args:
        data: what is known of the data: images.
        encoder: of glimpses.
        decoder: of glimpses.
        likelihood: of x, one whose mean can be painted: Bernoulli, normal, Laplace or hyperbolic secant.
        objective: the ELBO, without free bits.
        latent_dim: D.
        hidden: units of the LSTM, and of its input.
        steps: T, objects at most.
        glimpse: n.
        presence: the prior probability of one more object.
        cost: of an object in training, nats, or its schedule: no part of the bound.
        object_size: the prior's size of objects, as a share of the image's sides.
        size_std: its standard deviation, of log(size / (1 - size)).
        spread: the prior's standard deviation of a center; the image ends at -1 and 1.
        waiting: the fraction of the run in which presences are not trained. Before objects are recognizable, they make
            a scene worse than none would, or one of them explains everything: presences that become certain then never
            explore again.
        optimizer: its configuration.
        scheduler: the learning rate's.

    Raises:
        ConfigError: an argument is out of range, or two parts do not fit together.
    """
    channels, *_ = check_images(data, "AIR")
    with model_arguments():
        check_at_least(1, latent_dim=latent_dim, hidden=hidden, glimpse=glimpse)
        check_repetitions(steps=steps)
        scheduled = Scheduled(cost, "cost")
        for name, share in (("presence", presence), ("object_size", object_size)):
            if not 0 < share < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share}")
        check_below_one(waiting=waiting)
        check_positive(size_std=size_std, spread=spread)
    if data.log_volume:
        raise ConfigError(
            "data.standardize must be none: AIR paints objects on black, and pixels that are standardized have no black"
        )
    p = likelihood_of(likelihood, data)
    if p.needs_mean:
        raise ConfigError("model.likelihood.base_rates must be false: AIR paints objects on black")
    if not isinstance(p, Bernoulli | LocationScale):
        raise ConfigError(
            f"model/likelihood: AIR paints means of bernoulli or of a location-scale family, not {type(p).__name__}"
        )
    o = part("objective", objective)
    if not isinstance(o, ELBO) or o.has_free_bits:
        raise ConfigError(
            "model/objective: AIR takes elbo without free bits, since the gradient of its presences is that of the elbo"
        )
    shape = (channels, glimpse, glimpse)
    finder = ObjectFinder(
        encoder=part("encoder", encoder, in_shape=shape),
        data_shape=data.shape,
        latent_dim=latent_dim,
        hidden=hidden,
        steps=steps,
        where_mean=torch.tensor([math.log(object_size / (1 - object_size)), 0.0, 0.0]),
        where_std=torch.tensor([size_std, spread, spread]),
        learning=Scheduled({"_target_": "attelbo.latent.schedules.Late", "fraction": waiting}, "waiting"),
    )
    return AttendInferRepeat(
        finder=finder,
        decoder=part("decoder", decoder, in_shape=(latent_dim,), out_shape=shape),
        likelihood=p,
        objective=o,
        presence=presence,
        cost=scheduled,
        counted=data.n_objects is not None,
        optimizer=optimizer,
        scheduler=scheduler,
    )
