"""Annealing and the best normals, where everything is known: a linear model, and a posterior on a grid."""

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import DiagonalNormal
from attelbo.latent.annealing import anneal
from attelbo.latent.refinement import best_normal, bound_of

X_DIM, Z_DIM, BATCH, STD = 7, 4, 3, 0.5


class Linear:
    """x = W z + noise of std ``STD``: log p(x) is a normal's, and the posterior has the same precision for all x."""

    def __init__(self) -> None:
        self.weight = torch.randn(X_DIM, Z_DIM, dtype=torch.float64)
        self.x = torch.randn(BATCH, Z_DIM, dtype=torch.float64) @ self.weight.T
        self.precision = torch.eye(Z_DIM, dtype=torch.float64) + self.weight.T @ self.weight / STD**2
        self.mean = self.x @ self.weight @ self.precision.inverse() / STD**2

    def log_joint(self, z: Tensor) -> Tensor:
        return D.Normal(z @ self.weight.T, STD).log_prob(self.x).sum(-1) + D.Normal(0.0, 1.0).log_prob(z).sum(-1)

    @property
    def log_evidence(self) -> Tensor:
        covariance = self.weight @ self.weight.T + STD**2 * torch.eye(X_DIM, dtype=torch.float64)
        return D.MultivariateNormal(torch.zeros(X_DIM, dtype=torch.float64), covariance).log_prob(self.x)

    def gap(self, q: DiagonalNormal) -> Tensor:
        """KL(q || posterior), (B,)."""
        covariance = torch.diag_embed(q.std.square())
        return D.kl_divergence(
            D.MultivariateNormal(q.mean, covariance),
            D.MultivariateNormal(self.mean, precision_matrix=self.precision.expand(BATCH, -1, -1)),
        )


@pytest.fixture
def linear() -> Linear:
    return Linear()


def off(linear: Linear) -> DiagonalNormal:
    """Far from the posterior: shifted by several of its stds, and too wide."""
    std = linear.precision.inverse().diagonal().sqrt().expand(BATCH, -1)
    return DiagonalNormal(linear.mean + 4 * std, (2 * std).log())


def test_annealing_finds_the_likelihood_from_afar(linear: Linear) -> None:
    estimate = anneal(linear.log_joint, off(linear), n_chains=400, n_temperatures=100)
    torch.testing.assert_close(estimate.log_likelihood, linear.log_evidence, atol=0.25, rtol=0)
    assert (estimate.acceptance > 0.4).all()
    # What as many importance samples make of it.
    z, log_q = off(linear).rsample_with_log_prob(400)
    importance = (linear.log_joint(z) - log_q).logsumexp(0) - torch.tensor(400.0).log()
    assert (linear.log_evidence - importance).max() > 0.5


def test_weights_have_the_mean_p_of_x_whatever_the_transitions(linear: Linear) -> None:
    # Few temperatures: each estimate is far too low, but the mean of its exponential is not.
    q = DiagonalNormal(linear.mean, (1.5 * linear.precision.inverse().diagonal().sqrt()).log().expand(BATCH, -1))
    estimate = anneal(linear.log_joint, q, n_chains=20_000, n_temperatures=2, n_leapfrog=2)
    torch.testing.assert_close(estimate.log_likelihood, linear.log_evidence, atol=0.05, rtol=0)


def test_one_temperature_is_importance_sampling(linear: Linear) -> None:
    q = off(linear)
    found = anneal(linear.log_joint, q, n_chains=1, n_temperatures=1).log_likelihood
    torch.manual_seed(0)
    again = anneal(linear.log_joint, q, n_chains=1, n_temperatures=1).log_likelihood
    torch.manual_seed(0)
    torch.randn(4, BATCH, Z_DIM, dtype=torch.float64), torch.randn(4, BATCH, Z_DIM, dtype=torch.float64)
    torch.rand(4, BATCH, dtype=torch.float64)  # what the first pass draws
    z = q.mean + q.std * torch.randn(1, BATCH, Z_DIM, dtype=torch.float64)
    torch.testing.assert_close(again, (linear.log_joint(z) - q.log_prob(z))[0])
    assert not torch.equal(found, again)


def test_annealing_of_a_posterior_with_two_modes() -> None:
    def log_joint(z: Tensor) -> Tensor:
        likelihood = D.Normal(z.square().sum(-1), 0.3).log_prob(torch.tensor([1.0, 2.5], dtype=torch.float64))
        return likelihood + D.Normal(0.0, 1.0).log_prob(z).sum(-1)

    nodes, cell = contract.grid(2, half_width=4.0, points=401)
    exact = (log_joint(nodes.unsqueeze(1).expand(-1, 2, -1))).logsumexp(0) + torch.tensor(cell).log()
    q = DiagonalNormal(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    estimate = anneal(log_joint, q, n_chains=400)
    torch.testing.assert_close(estimate.log_likelihood, exact, atol=0.1, rtol=0)


def test_events_of_any_shape(linear: Linear) -> None:
    q = off(linear)
    shaped = DiagonalNormal(q.mean.view(BATCH, 2, 1, 2), q.log_std.view(BATCH, 2, 1, 2))
    log_joint = lambda z: linear.log_joint(z.flatten(2))  # noqa: E731
    estimates = []
    for function, start in ((linear.log_joint, q), (log_joint, shaped)):
        torch.manual_seed(0)
        estimates.append(anneal(function, start, n_temperatures=5).log_likelihood)
    torch.testing.assert_close(*estimates)


def test_the_best_normal_is_the_one_that_is_known(linear: Linear) -> None:
    best = best_normal(linear.log_joint, off(linear), n_steps=1000)
    std = linear.precision.diagonal().rsqrt().expand(BATCH, -1)
    torch.testing.assert_close(best.std, std, rtol=0.03, atol=0)
    torch.testing.assert_close((best.mean - linear.mean) / std, torch.zeros_like(std), atol=0.05, rtol=0)
    # The approximation gap: half of log det diag(P) - log det P.
    gap = 0.5 * (linear.precision.diagonal().log().sum() - linear.precision.logdet())
    torch.testing.assert_close(linear.gap(best), gap.expand(BATCH), atol=0.02, rtol=0)
    bound = bound_of(linear.log_joint, best, 20_000)
    torch.testing.assert_close(linear.log_evidence - bound, linear.gap(best), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["n_chains", "n_temperatures", "n_leapfrog"])
def test_numbers_are_checked(linear: Linear, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        anneal(linear.log_joint, off(linear), **{name: 0})
