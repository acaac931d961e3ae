"""Each prior whose density is estimated: without bias, and from below in logarithms, against quadrature over u."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

from attelbo.latent import DiagonalNormal, StandardNormal, TwoStage

NAMES = sorted(contract.FAMILIES["prior"]["estimated"])
CENTER, SPREAD = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.7, 1.6], dtype=torch.float64)


def prior(*latent_shape: int, n_samples: int = 8) -> Any:
    p = contract.build_part("prior", "two_stage", latent_shape=latent_shape, hidden=(6, 5), n_samples=n_samples)
    return contract.randomize(p, scale=0.4)


@pytest.fixture
def p() -> Any:
    part = prior(2)
    part.center.copy_(CENTER)
    part.spread.copy_(SPREAD)
    return part


@torch.no_grad()
def exact(p: Any, z: Tensor, std: float = 0.0) -> Tensor:
    """log p(z) of z (N, 2), or of z with normal noise in it, by a sum over a grid of u."""
    u, cell = contract.grid(2, half_width=6.0, points=61)
    mean = p.decode(u) * p.spread + p.center
    variance = (p.spread * p.log_gamma.exp()).square() + std**2
    log_p = D.Normal(mean, variance.sqrt()).log_prob(z.unsqueeze(1)).sum(-1)  # (N, points^2)
    return (log_p + D.Normal(0.0, 1.0).log_prob(u).sum(-1)).logsumexp(1) + math.log(cell)


def test_every_prior_is_here() -> None:
    assert NAMES == ["two_stage"]
    assert TwoStage.estimates
    assert not StandardNormal.estimates


@torch.no_grad()
@pytest.mark.parametrize("n_samples", [1, 8])
def test_the_estimate_has_no_bias(p: Any, n_samples: int) -> None:
    n, z = 100_000 // n_samples, 1.5 * torch.randn(6, 2, dtype=torch.float64)
    p.n_samples = n_samples
    ratio = (p.log_prob(z.expand(n, 6, 2)) - exact(p, z)).exp()  # (n, 6)
    error = ratio.std(0) / n**0.5
    assert (error < 0.05).all()
    assert ((ratio.mean(0) - 1).abs() < 5 * error).all()


@torch.no_grad()
def test_its_logarithm_is_below_and_nears_the_truth(p: Any) -> None:
    z = torch.randn(6, 2, dtype=torch.float64)
    truth, means = exact(p, z), []
    for n_samples in (1, 8, 64):
        p.n_samples = n_samples
        means.append(p.log_prob(z.expand(3_000, 6, 2)).mean(0))
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2]).all()
    assert (means[2] < truth + 0.01).all()  # 5 standard errors at 64 samples are less
    assert (truth - means[2] < 0.5 * (truth - means[1])).all()


@torch.no_grad()
def test_samples_are_those_of_the_density(p: Any) -> None:
    n = 50_000
    z = p.sample(n)
    assert z.shape == (n, 2)
    assert z.dtype == torch.float64
    nodes, cell = contract.grid(2, half_width=12.0, points=61)
    mass = exact(p, nodes).exp() * cell
    assert float(mass.sum()) == pytest.approx(1, rel=1e-4)
    features = lambda z: torch.cat([z, z.square(), z[:, :1] * z[:, 1:], z.sin()], dim=1)  # noqa: E731
    sampled, expected = features(z), (mass.unsqueeze(1) * features(nodes)).sum(0)
    assert ((sampled.mean(0) - expected).abs() < 5 * sampled.std(0) / n**0.5 + 1e-3).all()


@torch.no_grad()
def test_importance_weights_of_a_vae_stay_unbiased_and_its_bound_one(p: Any) -> None:
    """x = z + noise: E[p(x|z) p(z) / q(z|x)] = p(x) with the estimate for p(z), one sample of u for each z."""
    n, std, x = 200_000, 0.6, torch.tensor([[0.3, -0.8], [1.5, 1.0]], dtype=torch.float64)
    p.n_samples = 1
    q = DiagonalNormal(0.8 * x, torch.full_like(x, math.log(0.7)))
    z, log_q = q.rsample_with_log_prob(n)
    log_w = D.Normal(z, std).log_prob(x).sum(-1) + p.log_prob(z) - log_q
    truth = exact(p, x, std)
    ratio = (log_w - truth).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / n**0.5).all()
    assert (ratio.std(0) / n**0.5 < 0.02).all()
    assert (log_w.mean(0) < truth).all()


@pytest.mark.parametrize("latent_shape", [(3,), (2, 2, 3)])
def test_with_the_true_posterior_of_u_one_sample_says_it_all(latent_shape: tuple[int, ...]) -> None:
    """It starts as a normal distribution, whose q(u|z) is linear."""
    part = contract.build_part("prior", "two_stage", latent_shape=latent_shape, n_samples=1)
    dim, gamma = math.prod(latent_shape), 0.6
    encoder = nn.Linear(dim, 2 * dim).double()
    with torch.no_grad():
        part.log_gamma.fill_(math.log(gamma))
        encoder.weight.zero_()
        encoder.weight[:dim].copy_((1 / (1 + gamma**2) - 1) * torch.eye(dim))
        encoder.bias.fill_(0.0)[dim:].fill_(math.log(gamma / (1 + gamma**2) ** 0.5))
        part.encoder = encoder
        z = 2 * torch.randn(5, 4, *latent_shape, dtype=torch.float64)
        part.start_from(1 + 3 * torch.randn(50, *latent_shape, dtype=torch.float64))
    std = part.spread * (1 + gamma**2) ** 0.5
    torch.testing.assert_close(part.log_prob(z), D.Normal(part.center, std).log_prob(z.flatten(2)).sum(-1))


def test_gradients_by_finite_differences(p: Any) -> None:
    def log_prob(z: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(1)
        return p.log_prob(z)

    z = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (z, *p.parameters()), fast_mode=True)


def test_every_parameter_is_trained() -> None:
    part = prior(3)
    z = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    part.log_prob(z).sum().backward()
    for leaf in (z, *part.parameters()):
        assert leaf.grad is not None
        assert (leaf.grad != 0).all()


def test_full_precision_under_autocast() -> None:
    part = prior(3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p, z = part.log_prob(torch.randn(5, 4, 3)), part.sample(4)
    assert z.dtype == log_p.dtype == torch.float32


def test_a_far_point_keeps_a_finite_density() -> None:
    part = prior(2).float()
    z = torch.full((1, 1, 2), 1e4, requires_grad=True)
    log_p = part.log_prob(z)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_a_dimension_that_encodings_do_not_use_keeps_a_finite_density() -> None:
    part, z = prior(2), torch.randn(50, 2, dtype=torch.float64)
    z[:, 1] = 3.0
    part.start_from(z)
    assert part.log_prob(z.unsqueeze(0)).isfinite().all()


def test_it_learns_what_no_normal_distribution_is() -> None:
    """A ring in the plane; u is put to use from the first step on."""
    angle = 2 * math.pi * torch.rand(1_000)
    ring = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(1_000, 2)
    part = TwoStage((2,), hidden=(32, 32))
    part.start_from(ring)
    optimizer = torch.optim.Adam(part.parameters(), lr=1e-2)
    normal = float(D.MultivariateNormal(ring.mean(0), ring.T.cov()).log_prob(ring).mean())
    for rows in [rows for _ in range(20) for rows in torch.randperm(1_000).split(100)]:
        optimizer.zero_grad()
        (-part.log_prob(ring[rows].unsqueeze(0)).mean()).backward()
        optimizer.step()
    assert float(part.log_prob(ring.unsqueeze(0)).detach().mean()) > normal + 0.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_samples": 0}, r"^n_samples must be at least 1, got 0"),
        ({"hidden": []}, r"^hidden must name at least one layer"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract.build_part("prior", "two_stage", latent_shape=(2,), **given)
