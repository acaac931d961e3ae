"""The parts together on the one VAE whose evidence is known: x = W z + b + noise, everything normal.

log p(x) = N(x; b, W W^T + s^2 I), and the true posterior is N(P^-1 W^T (x - b) / s^2, P^-1), P = I + W^T W / s^2.
"""

import itertools
import math
from dataclasses import dataclass

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import (
    IWAE,
    DiagonalNormal,
    Distribution,
    Evidence,
    FullNormal,
    Normal,
    StandardNormal,
    estimate_log_likelihood,
)

X_DIM, Z_DIM, BATCH, STD = 5, 2, 3, 0.6


@dataclass
class LinearGaussian:
    weight: Tensor
    bias: Tensor
    x: Tensor
    posterior: Distribution

    @property
    def log_evidence(self) -> Tensor:
        covariance = self.weight @ self.weight.T + STD**2 * torch.eye(X_DIM, dtype=torch.float64)
        return D.MultivariateNormal(self.bias, covariance).log_prob(self.x)

    def true_posterior(self) -> FullNormal:
        precision = torch.eye(Z_DIM, dtype=torch.float64) + self.weight.T @ self.weight / STD**2
        covariance = precision.inverse()
        mean = (self.x - self.bias) @ self.weight @ covariance / STD**2
        return FullNormal(mean, torch.linalg.cholesky(covariance).expand(BATCH, -1, -1))

    def evidence(self, n: int) -> Evidence:
        likelihood = Normal((X_DIM,), calibration="fixed", scale=STD).double()
        prior = StandardNormal((Z_DIM,)).double()
        z, kl = self.posterior.rsample(n), prior.exact_kl(self.posterior)
        assert kl is not None
        log_likelihood = likelihood.log_prob(z @ self.weight.T + self.bias, self.x)
        log_weights = log_likelihood + prior.log_prob(z) - self.posterior.log_prob(z)
        zeros = torch.zeros_like(log_weights)  # what it weighs is tested with the gradients of DReG
        return Evidence(log_likelihood, kl, z, self.posterior, log_weights, sample_weights=zeros)


@pytest.fixture
def model() -> LinearGaussian:
    """With an approximate posterior that misses by a little, so that its bound has a gap."""
    weight = torch.randn(X_DIM, Z_DIM, dtype=torch.float64)
    bias, noise = torch.randn(X_DIM, dtype=torch.float64), torch.randn(BATCH, X_DIM, dtype=torch.float64)
    x = torch.randn(BATCH, Z_DIM, dtype=torch.float64) @ weight.T + bias + STD * noise
    model = LinearGaussian(weight, bias, x, DiagonalNormal(x[:, :Z_DIM], x[:, :Z_DIM]))
    true = model.true_posterior()
    std = true.scale_tril.square().sum(-1).sqrt()
    model.posterior = DiagonalNormal(true.mean + 0.3 * std, (1.2 * std).log())
    return model


def exact_elbo(model: LinearGaussian) -> Tensor:
    q = model.posterior
    assert isinstance(q, DiagonalNormal)
    at_mean = D.Normal(q.mean @ model.weight.T + model.bias, STD).log_prob(model.x).sum(-1)
    spread = (q.std.square() @ model.weight.square().sum(0)) / (2 * STD**2)
    return at_mean - spread - D.kl_divergence(D.Normal(q.mean, q.std), D.Normal(0.0, 1.0)).sum(-1)


def test_elbo_is_exact_on_average(model: LinearGaussian) -> None:
    n = 200_000
    terms = model.evidence(n)
    standard_error = terms.log_likelihood.std(0) / n**0.5
    assert ((terms.elbo - exact_elbo(model)).abs() < 5 * standard_error).all()


def test_bounds_are_ordered(model: LinearGaussian) -> None:
    # The same samples for every K: their mean over groups of K is monotone in K but for the noise.
    n = 200_000
    log_weights = model.evidence(n).log_weights
    assert log_weights is not None
    bounds, errors = [], []
    for k in (1, 2, 5, 20, 100):
        bound = log_weights.unflatten(0, (k, n // k)).logsumexp(0) - math.log(k)
        bounds.append(bound.mean(0))
        errors.append(bound.std(0) / (n // k) ** 0.5)
    assert ((bounds[0] - exact_elbo(model)).abs() < 5 * errors[0]).all()
    for lower, upper in itertools.pairwise(bounds):
        assert (lower < upper).all()
    assert (bounds[-1] < model.log_evidence + 5 * errors[-1]).all()
    # The gap is real, and closes.
    assert (model.log_evidence - bounds[0] > 0.1).all()
    assert (model.log_evidence - bounds[-1] < 0.05).all()


@pytest.mark.parametrize("name", sorted(contract.FAMILIES["objective"]["bound"]))
def test_every_objective_bounds_the_evidence(model: LinearGaussian, name: str) -> None:
    objective = contract.build_part("objective", name)
    losses = torch.stack([objective(model.evidence(objective.n_samples)) for _ in range(2000)])
    standard_error = losses.std() / len(losses) ** 0.5
    assert losses.mean() > -model.log_evidence.mean() - 5 * standard_error
    if name in ("elbo", "lagging"):
        assert (losses.mean() + exact_elbo(model).mean()).abs() < 5 * standard_error


def test_true_posterior_leaves_no_gap(model: LinearGaussian) -> None:
    # Every importance weight is then p(x) itself: the sharpest test of all the signs and constants.
    model.posterior = model.true_posterior()
    terms = model.evidence(7)
    assert terms.log_weights is not None
    torch.testing.assert_close(terms.log_weights, model.log_evidence.expand(7, -1))
    torch.testing.assert_close(IWAE(7)(terms), -model.log_evidence.mean())
    estimate = estimate_log_likelihood(lambda k: torch.as_tensor(model.evidence(k).log_weights), 10, chunk=3)
    torch.testing.assert_close(estimate.log_likelihood, model.log_evidence)
    torch.testing.assert_close(estimate.effective_sample_size, torch.full((BATCH,), 10.0, dtype=torch.float64))
    assert (estimate.standard_error < 1e-6).all()


def test_importance_estimate_converges_to_the_evidence(model: LinearGaussian) -> None:
    n = 100_000
    estimate = estimate_log_likelihood(lambda k: torch.as_tensor(model.evidence(k).log_weights), n, chunk=7_000)
    assert (estimate.standard_error < 0.01).all()
    assert ((estimate.log_likelihood - model.log_evidence).abs() < 5 * estimate.standard_error).all()
    assert (estimate.effective_sample_size < n).all()
