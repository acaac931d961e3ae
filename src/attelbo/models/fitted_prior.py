"""A prior fitted to a trained autoencoder: the second of two stages (Dai & Wipf 2019, "Diagnosing and Enhancing VAE
Models", section 4; Ghosh et al. 2020 and van den Oord et al. 2017 for points and for codes).

    x -- encoder, posterior (frozen) --> z ~ q(z|x) --> -log p(z), minimized over the prior's parameters

The loss is the cross-entropy of the aggregate posterior q(z) = E_x q(z|x) and p(z): the part of the KL that depends on
the prior. All metrics are those of the autoencoder with its new prior; where x is discrete, with the bits/dim of each
stage besides their sum:

    -E_q[log p(x|z)] / (D log 2), first stage        KL(q(z|x) || p(z)) / (D log 2), prior

A q(z|x) that follows the gradient of log p(x, z) on its way to z, as in Hamiltonian VAEs, stays what it was: it follows
the prior of the first stage.

A class-conditional prior is fitted to z given y, and bounds are on log p(x|y), as for a conditional VAE.

Shapes: B batch, N training rows, F features of one, Y classes, D dimensions of x.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError, UserError
from attelbo.latent import Density, Evidence, Objective, Prior
from attelbo.latent.objectives.base import generative_of
from attelbo.metrics import Measure
from attelbo.models.base import Player, Terms
from attelbo.models.loading import read_weights
from attelbo.models.parts import offered_by
from attelbo.models.vae import VAESpecs, VariationalAutoencoder, vae_parts

_ROWS_TO_START_FROM = 5_000
"""Encodings from which a prior is initialized."""
_MOST_FEATURES = 2**28
"""The most numbers of features of all training rows that are cached, a gigabyte; otherwise each step computes them."""


class CrossEntropy(Objective):
    """loss = -mean_b log p(z), or log p(z|y), z ~ q(z|x), nats. For the second stage; not configurable."""

    n_samples = 1
    needs_generative = True

    def forward(self, evidence: Evidence) -> Tensor:
        prior = generative_of(evidence).prior_of(evidence.y)
        return -prior.log_prob(evidence.posterior.prior_value(evidence.z)).mean()


class FittedPrior(VariationalAutoencoder):
    """A VAE of which only the prior is trained, by :class:`CrossEntropy`; see :func:`build_fitted_prior`."""

    weights: str
    guide: Prior | None
    """The prior of the first stage, where q depends on it."""
    _known_classes: int | None
    _classes: Tensor
    _features: Tensor | None = None
    """In training, the features of each training row, (N, *F), if these are the same in each epoch: the encoder is
    frozen."""

    def freeze_first_stage(self, weights: str, n_classes: int | None, guide: Prior | None) -> Self:
        """Freeze everything but the prior; ``weights``: the checkpoint of the first stage; ``n_classes``: Y."""
        self.weights = weights
        self.guide = guide
        self._known_classes = n_classes if self.prior.knows_labels else None
        self.register_buffer("_classes", torch.arange(self._known_classes or 0), persistent=False)
        self.requires_grad_(False)
        self.prior.requires_grad_(True)
        if not any(parameter.requires_grad for parameter in self.prior.parameters()):
            raise ConfigError(f"prior: {type(self.prior).__name__} has nothing that could be fitted")
        self.objective = CrossEntropy()
        return self

    def train(self, mode: bool = True) -> Self:
        """The first stage stays in evaluation mode: codebooks and running means are fixed, categorical samples are
        hard."""
        super().train(mode)
        for frozen in (self.encoder, self.posterior, self.decoder, self.likelihood, self.guide):
            if frozen is not None:
                frozen.eval()
        return self

    def losses(self, batch: Batch) -> Terms:
        return {"loss": -self.prior_of(batch.y).bound(self._encodings(batch)).mean()}

    @torch.no_grad()
    def _encodings(self, batch: Batch) -> Tensor:
        """A sample of q(z|x) for each x as the prior sees it, (1, B, ...)."""
        kept = self._features
        h = self.encoder(batch.x) if kept is None else kept.index_select(0, batch.index)
        q = self._guided(self.posterior(h), batch.x, batch.y)
        return q.prior_value(q.rsample(1))

    @property
    def known_classes(self) -> int | None:
        return self._known_classes

    @property
    def given(self) -> str:
        return "" if self.known_classes is None else "the label"

    def prior_of(self, y: Tensor | None = None) -> Density:
        """p(z|y), if the prior is class-conditional and labels are given; else p(z)."""
        if self.known_classes is None or y is None:
            return self.prior
        return self.prior.given((y.unsqueeze(-1) == self._classes).to(torch.get_default_dtype()))

    def guide_of(self, y: Tensor | None) -> Density:
        return self.prior_of(y) if self.guide is None else self.guide

    def sample_prior(self, n: int, y: Tensor | None = None) -> Tensor:
        """Without labels, for the classes in turn."""
        if self.known_classes is not None and y is None:
            y = torch.arange(n, device=self._classes.device) % self.known_classes
        return super().sample_prior(n, y)

    def evaluation_results(self) -> Terms:
        results = super().evaluation_results()
        if self.has_bits:
            nats = math.log(2) * math.prod(self.encoder.in_shape)
            results["first_stage_bits"] = results["reconstruction"] / nats
            results["prior_bits"] = results["kl"] / nats
        return results

    @property
    def measures(self) -> Sequence[Measure]:
        of_label = f" given {self.given}" if self.given else ""
        at_most = ", at most" if self.prior.estimates else ""
        found: list[Measure] = []
        for measure in super().measures:
            found.append(measure)
            if measure.key == "bits_per_dim":
                found[-1] = Measure("bits_per_dim", "bits/dim", f"bits{of_label}, of both stages", 4, better="less")
                found.append(Measure("first_stage_bits", "first stage", "bits/dim, -log p(x|z)", 4, better="less"))
                found.append(Measure("prior_bits", "prior", f"bits/dim, KL{of_label}{at_most}", 4, better="less"))
        return found

    def players(self) -> list[Player]:
        return [Player(self.losses, [p for p in self.prior.parameters() if p.requires_grad])]

    def inference_parameters(self) -> list[nn.Parameter]:
        return []

    def setup(self, stage: str) -> None:
        """Before training: load the first stage's weights, and initialize the prior from its encodings. In a resumed
        run the checkpoint replaces both afterwards."""
        if stage != "fit":
            return
        own = self.state_dict()
        first = read_weights(Path(self.weights))[0]
        # Of a first stage that was itself fitted to one, q follows the prior of that one.
        guide = "guide." if any(name.startswith("guide.") for name in first) else "prior."
        guided = {f"guide.{name.removeprefix(guide)}": first[name] for name in first if name.startswith(guide)}
        kept = {name: value for name, value in (first | guided).items() if name in own and name[:6] != "prior."}
        missing = [name for name in own if not name.startswith("prior.") and name not in kept]
        if missing:
            raise UserError(f"{self.weights} is not a checkpoint of this autoencoder: {missing[0]} is not in it")
        self.load_state_dict(kept, strict=False)
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        rows = torch.arange(min(_ROWS_TO_START_FROM, data.n_rows("train")), device=self.device)
        self.eval()
        self.prior.start_from(self._encodings(data.materialize(rows, "train"))[0])
        super().train()  # all of it for now: the Trainer warns of modules in evaluation mode

    def on_train_start(self) -> None:
        """Weights are final now, in a resumed run too."""
        self.train()
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        n = data.n_rows("train")
        if data.repeats("train") and n * math.prod(self.encoder.out_shape) <= _MOST_FEATURES:
            parts = torch.arange(n, device=self.device).split(data.eval_batch_size)
            with torch.no_grad():
                self._features = torch.cat([self.encoder(data.materialize(rows, "train").x) for rows in parts])

    def on_train_end(self) -> None:
        self._features = None


def build_fitted_prior(
    data: DataSpec,
    weights: str,
    optimizer: Spec,
    scheduler: Spec,
    guide: Spec | None = None,
    **specs: Unpack[VAESpecs],
) -> FittedPrior:
    """Compose the parts of the first stage and the prior of the second.

    Args:
        data: what is known of the data.
        weights: the checkpoint of the first stage, read when training begins.
        optimizer: of the prior.
        scheduler: of the prior.
        guide: the prior of the first stage, if its q(z|x) depends on log p(x, z).
        specs: those of the first stage, but for the prior, which is the one that is fitted; objective and extra are for
            the record.

    Raises:
        ConfigError: the prior does not fit the posterior, cannot be built, has no parameters, or knows labels that not
            all rows have; no guide where q depends on one.
    """
    specs["extra"] = None
    parts = vae_parts(data, **specs)
    posterior, led_by = parts["posterior"], None
    if posterior.distribution.is_guided():
        if guide is None:
            raise ConfigError(
                f"model.guide: {type(posterior).__name__} follows log p(x, z), in which the prior of the first stage "
                "stays: give its configuration, as attelbo fit-prior does"
            )
        led_by = part("guide", guide, **offered_by(posterior.latent_shape, posterior.space, data))
    fitted = FittedPrior(**parts, optimizer=optimizer, scheduler=scheduler)
    if fitted.prior.knows_labels and data.n_labels is not None:
        raise ConfigError(f"prior: {type(fitted.prior).__name__} needs the label of every row, data.n_labels keeps few")
    return fitted.freeze_first_stage(weights, data.n_classes, led_by)
