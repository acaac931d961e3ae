"""beta-TCVAE: the KL decomposed (Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders",
arXiv:1802.04942, eq. 2-4 and appendix C).

    mean_b KL(q(z|x) || p(z)) = mutual information + total correlation + dimension-wise KL

Shapes: N rows of the training set, B batch, K samples, D latent dimensions.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from attelbo.checks import check_at_least, check_choice, check_not_negative
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective

Estimator = Literal["stratified", "weighted"]


class Aggregate(NamedTuple):
    """The estimate of the aggregate posterior q(z) = 1/N sum_n q(z|x_n) from a minibatch; each (K, B), nats."""

    log_joint: Tensor
    """log q(z)."""
    log_marginals: Tensor
    """sum_d log q(z_d)."""


class BetaTC(Objective):
    """loss = mean_b(-E_q[log p(x|z)]) + alpha MI + beta TC + gamma DKL, nats.

    MI is the mutual information of x and z under q, TC the total correlation KL(q(z) || prod_d q(z_d)), DKL the rest of
    the KL, which is taken as KL - MI - TC: with three weights of 1 the loss is exactly the negative ELBO, whatever the
    estimate of q(z).

    Args:
        beta: weight of the total correlation.
        alpha: of the mutual information.
        gamma: of the dimension-wise KL.
        estimator: of q(z) from a minibatch: ``stratified`` is unbiased; ``weighted``, the paper's simpler one, is too
            low by a factor of about N.
        n_rows: N; None: those that the model is trained on.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: a weight that is negative or not finite, another estimator, or n_rows or n_samples below 1.
    """

    watched = "loss"
    posteriors = (DiagonalNormal,)
    log_n: Tensor
    """log N; 0 until it is known, which counts as the size of the minibatch."""

    def __init__(
        self,
        beta: float = 2.0,
        alpha: float = 1.0,
        gamma: float = 1.0,
        estimator: Estimator = "stratified",
        n_rows: int | None = None,
        n_samples: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples, n_rows=n_rows)
        check_not_negative(beta=beta, alpha=alpha, gamma=gamma)
        check_choice("estimator", estimator, Estimator)
        self.beta = beta
        self.alpha = alpha
        self.gamma = gamma
        self.estimator: Estimator = estimator
        self.n_samples = n_samples
        self.reads_n_rows = n_rows is None
        # In the state dict, so that a loaded model evaluates the loss it was trained on.
        self.register_buffer("log_n", torch.tensor(math.log(n_rows or 1)))

    def at_start(self, n_rows: int) -> None:
        if self.reads_n_rows:
            self.log_n.fill_(math.log(n_rows))

    def forward(self, evidence: Evidence) -> Tensor:
        q = evidence.posterior
        assert isinstance(q, DiagonalNormal)
        aggregate = aggregate_posterior(q, evidence.z, self.log_n, self.estimator)
        information = (q.log_prob(evidence.z) - aggregate.log_joint).mean()
        correlation = (aggregate.log_joint - aggregate.log_marginals).mean()
        return (
            evidence.distortion
            + self.gamma * evidence.rate
            + (self.alpha - self.gamma) * information
            + (self.beta - self.gamma) * correlation
        )


def aggregate_posterior(q: DiagonalNormal, z: Tensor, log_n: Tensor, estimator: Estimator) -> Aggregate:
    """Estimate q(z) and its marginals at samples z (K, B, *E) of q from the B posteriors of the minibatch.

    ``stratified``: the posterior that z was drawn from weighs 1 / N, each other (N - 1) / (N (B - 1)); the mean over
    minibatches is q(z). The paper gives one of the others a different weight, so that its estimate depends on the order
    of the rows: this is the mean over all orders. ``weighted``: 1 / (N B) each.

    Args:
        q: of the minibatch.
        z: drawn from it, z[k, b] from row b.
        log_n: log N; an N below B counts as B.
        estimator: which of the two.
    """
    batch = z.shape[1]
    log_density = q.cross_log_prob_by_dimension(z.flatten(0, 1)).unflatten(0, (-1, batch))  # (K, B, B, D)
    log_weights = _log_weights(batch, log_n.clamp(min=math.log(batch)), estimator)  # (B, B)
    return Aggregate(
        torch.logsumexp(log_density.sum(-1) + log_weights, dim=2),
        torch.logsumexp(log_density + log_weights.unsqueeze(-1), dim=2).sum(-1),
    )


def _log_weights(batch: int, log_n: Tensor, estimator: Estimator) -> Tensor:
    """Of posterior j at the samples of posterior i, (B, B)."""
    own = torch.eye(batch, dtype=torch.bool, device=log_n.device)
    if batch == 1:
        return torch.zeros_like(own, dtype=log_n.dtype)  # only q(z|x) itself is known of q(z)
    if estimator == "weighted":
        return torch.full_like(own, -math.log(batch), dtype=log_n.dtype) - log_n
    others = torch.log1p(-(-log_n).exp()) - math.log(batch - 1)  # log (N - 1) / N (B - 1)
    return torch.where(own, -log_n, others)
