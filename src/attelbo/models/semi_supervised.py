"""The semi-supervised variational autoencoder M2, which learns a classifier from few labels and many images.

Kingma, Rezende, Mohamed & Welling 2014, "Semi-supervised Learning with Deep Generative Models" (arXiv:1406.5298).

    p(y) = 1/Y    p(z|y) = p(z)    p(x|y,z)         q(y|x), q(z|x,y)

An image whose label is not known is summed over all classes (their eq. 7), exactly:

    L(x, y) = E_q(z|x,y)[log p(x|y,z)] - KL(q(z|x,y) || p(z))
    log p(x, y) >= L(x, y) + log p(y)
    log p(x)    >= sum_y q(y|x) (L(x, y) + log p(y) - log q(y|x))

Validation and test use labels only for the accuracy of q(y|x).

Shapes: K samples of z for each x and class, B batch, Y classes, (C, H, W) image, E event shape of z, D its dimensions,
G groups of latents. Units: nats, summed over the dimensions of x and averaged over the batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.checks import check_not_negative
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import Capacity, Distribution, Evidence
from attelbo.latent.arithmetic import full_precision
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Terms, compute_and_reset
from attelbo.models.conditional import ConditionalVAE, check_labels, label_aware_parts
from attelbo.models.parts import model_arguments, takes_more_than_terms
from attelbo.models.vae import LabelAwareSpecs


class Enumerated(Distribution):
    """q(z|x) = sum_y w_y q(z|x,y): the posterior in the evidence terms of M2.

    Args:
        mean: E[z|x], (B, *E).
        penalty: a term of the training loss for each row, (B,).
    """

    def __init__(self, mean: Tensor, penalty: Tensor) -> None:
        self._mean = mean
        self._penalty = penalty

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def penalty(self) -> Tensor:
        return self._penalty

    def rsample(self, n: int) -> Tensor:
        raise NotImplementedError("z is drawn for every class, by the model")

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError("only the densities of z given a class are used")


class SemiSupervisedVAE(ConditionalVAE):
    """M2. q(z|x,y) and p(x|y,z) are those of :class:`ConditionalVAE`; q(y|x) is a linear map of a network of its own.

    The terms of a row with label -1, or of all rows if there are no labels, are summed over the classes; ``Evidence.z``
    is (K, B, Y, *E). The KL has one more group: KL(q(y|x) || p(y)), or -log p(y) where y is known. In importance
    weights, w_k = sum_y p(y) p(x|y,z_ky) p(z_ky) / q(z_ky|x,y), the label is summed out and q(y|x) does not enter.

    A labelled row adds -alpha log q(y|x) to the loss, so that q(y|x) learns from labels: no part of the bound. Neither
    is the penalty of q(z|x,y), such as a commitment to codes, which is averaged over classes like the terms of the
    bound.

    Args:
        classifier: x -> features, the network of q(y|x).
        alpha: the weight of a labelled row's classification; in the paper 0.1 N / N_l, for N_l labels among N rows.
        n_classes: Y.
        **parts: those of :class:`ConditionalVAE`.
    """

    encodes_labels = False
    sums_over_labels = True
    uses_data_keys = ("n_labels",)

    def __init__(self, classifier: nn.Module, alpha: float, n_classes: int, **parts: Any) -> None:
        super().__init__(n_classes, **parts)
        self.classifier = classifier
        self.alpha = alpha
        self.accuracy = SampleMean(["accuracy"])
        self.code_usage = None  # a row has codes for each class

    def log_classes(self, x: Tensor) -> Tensor:
        """log q(y|x) of x (B, C, H, W), (B, Y), nats."""
        return full_precision(self.classifier(x)).log_softmax(-1)

    # -- from a batch to its evidence ---------------------------------------------------------------

    def evidence(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_samples: int = 1,
        *,
        log_weights: bool = False,
        stop_posterior: bool = False,
    ) -> Evidence:
        given = super().evidence(
            *self._each_class(x), n_samples, log_weights=log_weights, stop_posterior=stop_posterior
        )
        log_q = self.log_classes(x)  # (B, Y)
        labels = x.new_zeros(len(x), self.n_classes) if y is None else self.one_hot(y)
        known = labels.sum(-1, keepdim=True)  # (B, 1), 1 or 0
        weights = torch.lerp(log_q.exp(), labels, known)  # (B, Y)
        # KL(weights || p(y)); the entropy of a known label is zero.
        label_kl = math.log(self.n_classes) + (1 - known) * (weights * log_q).sum(-1, keepdim=True)
        by_class = given.kl.unflatten(0, (-1, self.n_classes))  # (B, Y, G)
        z = given.z.unflatten(1, (-1, self.n_classes))
        means = given.posterior.mean.unflatten(0, (-1, self.n_classes))  # (B, Y, *E)
        penalty = -self.alpha * (labels * log_q).sum(-1)
        if given.posterior.penalty is not None:
            penalty = penalty + (given.posterior.penalty.unflatten(0, (-1, self.n_classes)) * weights).sum(1)
        return Evidence(
            log_likelihood=(given.log_likelihood.unflatten(1, (-1, self.n_classes)) * weights).sum(-1),
            kl=torch.cat([(by_class * weights.unsqueeze(-1)).sum(1), label_kl], 1),
            z=z,
            posterior=Enumerated((means * weights.view(*weights.shape, *[1] * (means.dim() - 2))).sum(1), penalty),
            log_weights=None if given.log_weights is None else self._sum_out(given.log_weights, labels, known),
        )

    def _each_class(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every row with every label, (B Y, C, H, W) and (B Y,): all classes of a row together."""
        rows = x.unsqueeze(1).expand(-1, self.n_classes, *x.shape[1:]).flatten(0, 1)
        return rows, self._classes.repeat(len(x))

    def _sum_out(self, log_weights: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """log sum_y p(y) w_y of log w (K, B Y), as (K, B); for a known label its own term."""
        excluded = ((1 - labels) * known).bool()
        log_weights = log_weights.unflatten(1, (-1, self.n_classes)).masked_fill(excluded, -math.inf)
        return log_weights.logsumexp(-1) - math.log(self.n_classes)

    @property
    def given(self) -> str:
        return ""  # labels are summed out

    def inference_parameters(self) -> list[nn.Parameter]:
        return [*super().inference_parameters(), *self.classifier.parameters()]

    # -- evaluation: the bound on log p(x), without labels ----------------------------------------------

    def evaluation_step(self, batch: Batch) -> None:
        super().evaluation_step(batch._replace(y=None))
        if batch.y is not None:
            self.accuracy.update({"accuracy": (self.log_classes(batch.x).argmax(-1) == batch.y).float()})

    def evaluation_results(self) -> Terms:
        return {**super().evaluation_results(), **compute_and_reset(self.accuracy)}

    @property
    def measures(self) -> Sequence[Measure]:
        return *super().measures, Measure("accuracy", "accuracy", "of the labels, by q(y|x)", 4, better="more")

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """q(y|x) of x (B, C, H, W): (B, Y)."""
        return self.log_classes(x).exp()

    def predicted(self, batch: Batch) -> Tensor:
        """q(y|x), (B, Y)."""
        return self.classify(batch.x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The means of q(z|x,y), (B, D), y the most probable class: labels are ignored."""
        return super().encode(x, self._guess(x))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().reconstruct(x, self._guess(x))

    @torch.no_grad()
    def _guess(self, x: Tensor) -> Tensor:
        return self.log_classes(x).argmax(-1)

    @torch.no_grad()
    def weight_sampler(self, x: Tensor, y: Tensor | None = None) -> Callable[[int], Tensor]:
        """As in :class:`ConditionalVAE`, of log p(x): the label is marginalized, whether it is known or not."""
        draw = super().weight_sampler(*self._each_class(x))
        unknown = x.new_zeros(len(x), self.n_classes)
        return lambda n_samples: self._sum_out(draw(n_samples), unknown, unknown[:, :1])


def build_m2(
    data: DataSpec, optimizer: Spec, scheduler: Spec, alpha: float = 10.0, **specs: Unpack[LabelAwareSpecs]
) -> SemiSupervisedVAE:
    """Compose M2 from its configuration, that of a VAE; q(y|x) has a network like the encoder.

    Raises:
        ConfigError: the data have no labels; an argument is out of range; parts do not fit together.
    """
    n_classes = check_labels("M2", data)
    with model_arguments():
        check_not_negative(alpha=alpha)
    parts = label_aware_parts(n_classes, data, **specs)
    o = parts["objective"]
    if takes_more_than_terms(o) or o.turns() or not parts["posterior"].has_density:
        raise ConfigError(
            f"model/objective: M2 sums its evidence terms over classes, and {type(o).__name__} takes more than these "
            "terms; ELBO and IWAE do not"
        )
    if isinstance(o, Capacity) and o.discrete_capacity is not None:
        raise ConfigError(
            "model.objective.discrete_capacity must be null: the KL of M2 has that of the label besides those of the "
            "parts of z, and it is in neither capacity"
        )
    body = part("encoder", specs["encoder"], in_shape=data.shape)
    classifier = nn.Sequential(body, nn.Flatten(), nn.Linear(math.prod(body.out_shape), n_classes))
    return SemiSupervisedVAE(classifier, alpha, n_classes, **parts, optimizer=optimizer, scheduler=scheduler)
