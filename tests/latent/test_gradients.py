"""Gradients of the importance-weighted bounds where everything is linear and normal: x = W z + noise.

R rows that are all the same x, each with a posterior of its own, are R draws of the estimated gradient.
"""

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import IWAE, DiagonalNormal, DReG, Evidence, FullNormal, Objective
from attelbo.latent.gradients import weigh_samples

STD, REPEATS, SAMPLES = 0.6, 40_000, 6


def weight() -> Tensor:
    return torch.tensor([[1.0, 0.5], [-0.7, 0.4], [0.3, 1.2]], dtype=torch.float64, requires_grad=True)


X = torch.tensor([0.8, -1.0, 0.4], dtype=torch.float64)


def evidence(q: DiagonalNormal | FullNormal, w: Tensor, stop_posterior: bool, n: int = SAMPLES) -> Evidence:
    z, sample_weights = weigh_samples(q.rsample(n))
    log_q = (q.stop_gradient() if stop_posterior else q).log_prob(z)
    log_likelihood = D.Normal(z @ w.T, STD).log_prob(X).sum(-1)
    log_prior = D.Normal(0.0, 1.0).log_prob(z).sum(-1)
    kl = torch.zeros(len(q.mean), 1)
    return Evidence(
        log_likelihood, kl, z, q, log_likelihood + log_prior - log_q, sample_weights if stop_posterior else None
    )


def draws(objective: Objective, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The gradient for each row's (mean, log std), (R, 4), and that for W, of the loss times ``scale``."""
    torch.manual_seed(1)
    parameters = torch.tensor([0.1, -0.4, -0.3, -0.6], dtype=torch.float64).repeat(REPEATS, 1).requires_grad_()
    w, q = weight(), DiagonalNormal(*parameters.chunk(2, dim=-1))
    (scale * objective(evidence(q, w, objective.stops_posterior))).backward()
    assert parameters.grad is not None
    assert w.grad is not None
    return REPEATS * parameters.grad / scale, w.grad / scale


def test_dreg_is_another_estimate_of_the_same_gradient_and_varies_less() -> None:
    plain, doubly = draws(IWAE(SAMPLES))[0], draws(DReG(SAMPLES))[0]
    difference = (plain - doubly).mean(0)
    error = (plain - doubly).std(0) / REPEATS**0.5
    assert (difference.abs() < 4 * error).all()
    assert (doubly.mean(0).abs() > 8 * error).all()  # else this would compare two zeros
    assert (doubly.var(0) < 0.7 * plain.var(0)).all()


def test_dreg_leaves_the_generative_gradient_as_it_is() -> None:
    torch.testing.assert_close(draws(DReG(SAMPLES))[1], draws(IWAE(SAMPLES))[1])


def test_dreg_gives_the_formula_of_the_paper() -> None:
    # sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi), the derivative by hand.
    torch.manual_seed(1)
    mean = torch.tensor([[0.1, -0.4]], dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor([[-0.3, -0.6]], dtype=torch.float64, requires_grad=True)
    q, w = DiagonalNormal(mean, log_std), weight()
    terms = evidence(q, w, stop_posterior=True)
    DReG(SAMPLES)(terms).backward()
    z, log_weights = terms.z[:, 0].detach(), torch.as_tensor(terms.log_weights)[:, 0]
    with torch.no_grad():
        slope = (X - z @ w.T) @ w / STD**2 - z + (z - mean) / q.std.square()  # (K, D)
        weighted = log_weights.softmax(0).square().unsqueeze(-1) * slope
        noise = (z - mean) / q.std
        torch.testing.assert_close(mean.grad, -weighted.sum(0, keepdim=True))
        torch.testing.assert_close(log_std.grad, -(weighted * noise * q.std).sum(0, keepdim=True))


def test_dreg_at_the_true_posterior_is_zero_without_noise() -> None:
    w = weight()
    with torch.no_grad():
        covariance = (torch.eye(2, dtype=torch.float64) + w.T @ w / STD**2).inverse()
        mean = (X @ w @ covariance / STD**2).unsqueeze(0)
        factor = torch.linalg.cholesky(covariance).unsqueeze(0)
    for objective, is_zero in ((DReG(SAMPLES), True), (IWAE(SAMPLES), False)):
        parameters = [mean.clone().requires_grad_(), factor.clone().requires_grad_()]
        objective(evidence(FullNormal(*parameters), w, objective.stops_posterior)).backward()
        assert all((torch.as_tensor(p.grad).tril().abs() < 1e-12).all() for p in parameters) == is_zero


@pytest.mark.parametrize("scale", [1e-3, 0.5, 7.0])
def test_what_multiplies_the_loss_multiplies_the_gradient(scale: float) -> None:
    # Parts of a minibatch, and scaled 16-bit losses.
    for scaled, plain in zip(draws(DReG(SAMPLES), scale), draws(DReG(SAMPLES)), strict=True):
        torch.testing.assert_close(scaled, plain)


def test_weighing_changes_no_value_and_works_under_vmap() -> None:
    z = torch.randn(3, 4, 2, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 4, 2, dtype=torch.float64)

    def loss(z: Tensor, weights: Tensor) -> Tensor:
        same, zeros = weigh_samples(z)
        return same.square().sum() / 2 + (weights * zeros).sum()

    total = torch.vmap(loss)(z, weights).sum()
    torch.testing.assert_close(total, z.square().sum() / 2)
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(gradient, z * (weights / weights.sum(1, keepdim=True)).unsqueeze(-1))


def test_dreg_without_what_weighs_says_so() -> None:
    q = DiagonalNormal(*torch.zeros(2, 1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="evidence has no sample_weights"):
        DReG()(evidence(q, weight(), stop_posterior=False))
