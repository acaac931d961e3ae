"""Latents on the unit sphere against scipy, closed forms and quadrature on circle and sphere."""

import math
from collections.abc import Callable
from typing import Any

import latent_contract as contract
import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent import Prior, UniformSphere, VonMisesFisher, VonMisesFisherPosterior, sampled_kl
from attelbo.latent.spaces import Real, Sphere
from attelbo.latent.spherical import CosineProfile, log_sphere_area

POSTERIORS = sorted(contract.FAMILIES["posterior"]["sphere"])
PRIORS = sorted(contract.FAMILIES["prior"]["sphere"])
IN_SHAPE = (3, 2, 2)
DIMS = [2, 3, 4, 7, 16, 33, 100, 1000]
KAPPAS = np.logspace(-4, 5, 19)

# The logarithm of the density of the prior as its file describes it, in d dimensions.
TABLE: dict[str, Callable[[int], float]] = {
    "uniform_sphere": lambda dim: math.lgamma(dim / 2) - math.log(2) - dim / 2 * math.log(math.pi)
}


def posterior(latent_dim: int = 3) -> VonMisesFisherPosterior:
    part = contract.build_part("posterior", "von_mises_fisher", in_shape=IN_SHAPE, latent_dim=latent_dim)
    contract.randomize(part, scale=0.15)
    return part


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def directions(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def nodes_on(dim: int, points: int = 400) -> tuple[Tensor, Tensor]:
    """Points on the circle or the sphere, (points, dim), and the arc or area that each stands for."""
    azimuth = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    if dim == 2:
        return torch.stack([azimuth.cos(), azimuth.sin()], -1), torch.full((points,), 2 * math.pi / points)
    height, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(points // 2))
    height, azimuth = torch.meshgrid(height, azimuth, indexing="ij")
    radius = (1 - height.square()).sqrt()
    nodes = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), height], -1)
    return nodes.flatten(0, 1), (weights.unsqueeze(-1) * (2 * math.pi / points)).expand_as(height).flatten()


def test_every_part_is_here() -> None:
    assert POSTERIORS == ["von_mises_fisher"]
    assert set(PRIORS) == set(TABLE)


# -- the profile: Bessel functions by another way ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_the_normalizer_is_that_of_bessel_functions(dim: int, dtype: torch.dtype) -> None:
    order = dim / 2 - 1
    # Where scipy's own value is neither 0 nor a denormal number.
    kappas = KAPPAS[special.ive(order, KAPPAS) > 1e-290]
    profile = CosineProfile(torch.tensor(kappas, dtype=dtype), dim)
    expected = special.gammaln(order + 1) + order * np.log(2 / kappas) + np.log(special.ive(order, kappas))
    ratio = special.ive(order + 1, kappas) / special.ive(order, kappas)
    tolerance = 2e-8 if dtype == torch.float64 else 1e-6
    # Near kappa = 0 the logarithms of huge and tiny numbers cancel in what is expected.
    np.testing.assert_allclose(profile.log_mean_exp, expected, rtol=tolerance, atol=max(tolerance, 1e-13 * dim**2))
    np.testing.assert_allclose(1 - profile.gap, ratio, atol=tolerance)


@pytest.mark.parametrize("dim", DIMS)
def test_the_normalizer_by_its_power_series_and_its_limits(dim: int) -> None:
    kappa = torch.tensor([0.0, 1e-3, 0.1, 1.0], dtype=torch.float64)
    terms = [(kappa / 2) ** (2 * j) / (math.factorial(j) * special.poch(dim / 2, j)) for j in range(12)]
    profile = CosineProfile(kappa, dim)
    torch.testing.assert_close(profile.log_mean_exp, torch.stack(terms).sum(0).log() - kappa, rtol=1e-8, atol=1e-8)
    far = CosineProfile(torch.tensor([1e9]), dim)
    torch.testing.assert_close(far.gap, torch.tensor([(dim - 1) / 2e9]), rtol=1e-5, atol=0)
    assert far.log_mean_exp.isfinite()


@pytest.mark.parametrize("dim", [2, 3, 16, 200])
def test_the_profile_by_finite_differences(dim: int) -> None:
    kappa = torch.tensor([1e-3, 0.5, 4.0, 60.0, 900.0], dtype=torch.float64, requires_grad=True)

    def values(kappa: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        profile = CosineProfile(kappa, dim)
        return profile.log_mean_exp, profile.gap, *profile.rsample(7)

    assert torch.autograd.gradcheck(values, (kappa,), eps=1e-4, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("dim", [2, 3, 16, 300])
def test_samples_invert_the_distribution_function(dim: int, kappa: float) -> None:
    torch.manual_seed(3)
    cosine, sine, below_one = CosineProfile(torch.tensor([kappa], dtype=torch.float64), dim).rsample(40)
    torch.manual_seed(3)
    level = torch.rand(40, 1, dtype=torch.float64)
    torch.testing.assert_close(cosine.square() + sine.square(), torch.ones_like(cosine))
    torch.testing.assert_close(1 - cosine, below_one)
    # The angle's density, from the smallest angle that matters on; w = 1 is at the angle 0.
    largest = min(math.pi, 12 * math.sqrt(dim / kappa)) if kappa else math.pi
    angle = np.linspace(0, largest, 20_001)
    log_density = kappa * (np.cos(angle) - 1) + (dim - 2) * np.log(np.sin(angle).clip(1e-300))
    mass = integrate.cumulative_simpson(np.exp(log_density - log_density.max()), x=angle, initial=0)
    found = 1 - np.interp(np.arctan2(sine.numpy(), cosine.numpy()), angle, mass / mass[-1])
    np.testing.assert_allclose(found, level.numpy(), atol=1e-5)


def test_area_of_circle_and_sphere() -> None:
    assert math.exp(log_sphere_area(2)) == pytest.approx(2 * math.pi)
    assert math.exp(log_sphere_area(3)) == pytest.approx(4 * math.pi)


# -- the distribution --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_density_integrates_to_one(dim: int) -> None:
    q = VonMisesFisher(directions(4, dim), torch.tensor([1e-3, 1.0, 10.0, 100.0], dtype=torch.float64))
    nodes, weights = nodes_on(dim)
    total = (q.log_prob(nodes.unsqueeze(1)).exp() * weights.unsqueeze(-1)).sum(0)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_log_prob_is_that_of_scipy(dim: int) -> None:
    mu, kappa = directions(3, dim), torch.tensor([0.3, 7.0, 200.0], dtype=torch.float64)
    z = directions(5, 3, dim)
    ours = VonMisesFisher(mu, kappa).log_prob(z)
    scipys: Any = stats.vonmises_fisher  # whose stubs want whole numbers
    for row in range(3):
        theirs = scipys(mu[row].numpy(), float(kappa[row])).logpdf(z[:, row].numpy())
        np.testing.assert_allclose(ours[:, row], theirs, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_samples_have_the_moments_of_the_distribution(dim: int) -> None:
    n = 50_000
    mu, kappa = directions(3, dim), torch.tensor([0.1, 5.0, 300.0], dtype=torch.float64)
    q = VonMisesFisher(mu, kappa)
    z = q.rsample(n)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(n, 3, dtype=torch.float64))
    assert ((z.mean(0) - q.mean).abs() < 5 * z.std(0) / n**0.5).all()
    # E[w^2] = 1 - (d - 1) A / kappa, and orthogonal to mu all directions are alike.
    w = (z * mu).sum(-1)
    length = q.mean.norm(dim=-1)
    expected = 1 - (dim - 1) * length / kappa
    assert ((w.square().mean(0) - expected).abs() < 5 * w.square().std(0) / n**0.5 + 1e-9).all()
    away = z - w.unsqueeze(-1) * mu
    for row in range(3):
        covariance = away[:, row].T @ away[:, row] / n
        flat = (1 - expected[row]) / (dim - 1) * (torch.eye(dim) - torch.outer(mu[row], mu[row]))
        assert (covariance - flat).abs().max() < 5 * (3 / n) ** 0.5 * (1 - expected[row]) / (dim - 1) ** 0.5


@pytest.mark.parametrize("kappa", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("dim", [2, 3, 8])
def test_gradients_of_expectations_are_unbiased(dim: int, kappa: float) -> None:
    """E_q[exp <a, z>] = M(|kappa mu + a|) / M(kappa) is known, and so is its gradient by mu and kappa."""
    n_rows, n_samples = 100, 500
    a = 1.5 * directions(dim)
    m = torch.randn(1, dim, dtype=torch.float64, requires_grad=True)
    k = torch.tensor([kappa], dtype=torch.float64, requires_grad=True)

    def log_mgf(x: Tensor) -> Tensor:
        return CosineProfile(x, dim).log_mean_exp + x

    exact = (log_mgf((k.unsqueeze(-1) * F.normalize(m, dim=-1) + a).norm(dim=-1)) - log_mgf(k)).exp()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact.sum(), (m, k))])

    # Rows are independent estimates: their mean has a standard error.
    rows = m.detach().repeat(n_rows, 1).requires_grad_()
    kappas = k.detach().repeat(n_rows).requires_grad_()
    f = (VonMisesFisher(F.normalize(rows, dim=-1), kappas).rsample(n_samples) @ a).exp().mean(0)
    by_row, by_kappa = torch.autograd.grad(f.sum(), (rows, kappas))
    found = torch.cat([by_row, by_kappa.unsqueeze(-1)], -1)
    assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / n_rows**0.5 + 1e-12).all()
    assert (f.mean() - exact).abs() < 5 * f.std() / n_rows**0.5


def test_samples_with_their_density_are_samples_and_their_density() -> None:
    part, h = posterior(), features()

    def gradients(z: Tensor, log_q: Tensor) -> list[Tensor]:
        part.zero_grad()
        (z.cumsum(-1).square().sum(-1) * log_q).sum().backward()
        return [torch.as_tensor(parameter.grad).clone() for parameter in part.parameters()]

    torch.manual_seed(0)
    q = part(h)
    z = q.rsample(5)
    log_q = q.log_prob(z)
    torch.manual_seed(0)
    together = part(h).rsample_with_log_prob(5)
    torch.testing.assert_close(together, (z, log_q))
    torch.testing.assert_close(gradients(*together), gradients(z, log_q))


def test_gradients_of_the_density() -> None:
    part = posterior()

    def density(h: Tensor, z: Tensor) -> Tensor:
        return part(h).log_prob(F.normalize(z, dim=-1))

    z = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(density, (features(2).requires_grad_(), z))


def test_without_gradient_it_is_the_same_distribution() -> None:
    part = posterior()
    q, z = part(features()), directions(5, 4, 3).requires_grad_()
    log_q = q.stop_gradient().log_prob(z)
    assert (log_q == q.log_prob(z)).all()
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


# -- the posterior -----------------------------------------------------------------------------------------


def test_posterior_says_where_its_latents_are() -> None:
    part = posterior()
    assert part.space == Sphere((3,))
    q = part(features())
    torch.testing.assert_close(q.center.norm(dim=-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(F.normalize(q.mean, dim=-1), q.center)
    assert (q.kappa > 1).all()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_wild_features_stay_finite(size: float) -> None:
    part = posterior().float()
    h = (size * features(8)).float().requires_grad_()
    q = part(h)
    z, log_q = q.rsample_with_log_prob(3)
    total = contract.kl(UniformSphere((3,)), q, 1).sum() + z.sum() + log_q.sum() + q.log_prob(z.detach()).sum()
    total.backward()
    assert total.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_full_precision_under_autocast() -> None:
    part = posterior().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(features().float())
        z, log_q = q.rsample_with_log_prob(50)
        log_prob = q.log_prob(z)
    assert z.dtype == log_q.dtype == torch.float32
    exact = VonMisesFisher(q.direction.double(), q.kappa.double()).log_prob(z.double())
    for found in (log_q, log_prob):
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_trained_and_rows_are_independent() -> None:
    part, h = posterior(), features(2).requires_grad_()
    part(h).rsample(3)[:, 0].cumsum(-1).sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


def test_a_sphere_in_one_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 2, got 1"):
        contract.build_part("posterior", "von_mises_fisher", in_shape=IN_SHAPE, latent_dim=1)


# -- the prior ---------------------------------------------------------------------------------------------


def prior(name: str, dim: int) -> Any:
    return contract.build_part("prior", name, latent_shape=(dim,))


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("dim", [2, 3, 16])
def test_prior_density_and_samples(name: str, dim: int) -> None:
    p: Prior = prior(name, dim)
    assert p.spaces == (Sphere,)
    assert not isinstance(Real((dim,)), p.spaces)
    z = directions(5, 4, dim)
    torch.testing.assert_close(p.log_prob(z), torch.full((5, 4), TABLE[name](dim), dtype=torch.float64))
    if dim < 4:
        nodes, weights = nodes_on(dim)
        assert float((p.log_prob(nodes.unsqueeze(1)).exp().squeeze(-1) * weights).sum()) == pytest.approx(1)
    n = 20_000
    draws = p.sample(n)
    assert draws.shape == (n, dim)
    torch.testing.assert_close(draws.norm(dim=-1), torch.ones(n, dtype=torch.float64))
    covariance = draws.T @ draws / n
    assert (draws.mean(0).abs() < 5 / (dim * n) ** 0.5).all()
    assert (covariance - torch.eye(dim) / dim).abs().max() < 5 * 2**0.5 / (dim * n**0.5)


@pytest.mark.parametrize("dim", [2, 3, 16, 128])
def test_exact_kl_is_that_of_monte_carlo(dim: int) -> None:
    n = 20_000
    q = VonMisesFisher(directions(4, dim), torch.tensor([1e-2, 2.0, 40.0, 2000.0], dtype=torch.float64))
    p = UniformSphere((dim,))
    exact = p.exact_kl(q)
    assert exact is not None
    assert exact.shape == (4, 1)
    z = q.rsample(n)
    standard_error = (q.log_prob(z) - p.log_prob(z)).std(0) / n**0.5
    assert ((exact.squeeze(-1) - sampled_kl(p, q, n)).abs() < 5 * standard_error + 1e-6).all()


def test_kl_of_the_uniform_distribution_is_zero_and_grows() -> None:
    kappa = torch.tensor([0.0, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e5], requires_grad=True)
    kl = VonMisesFisher(directions(7, 16).float(), kappa).divergence_from_uniform
    assert kl[0].abs() < 1e-7
    torch.testing.assert_close(kl[2], torch.tensor(0.1**2 / (2 * 16)), rtol=1e-3, atol=1e-7)
    assert (kl[2:].diff() > 0).all()
    (slope,) = torch.autograd.grad(kl.sum(), kappa)
    # kappa Var[w]: kappa / d near zero, (d - 1) / (2 kappa) far away; no cancellation in float32.
    torch.testing.assert_close(slope[1], torch.tensor(1e-3 / 16), rtol=1e-3, atol=0)
    torch.testing.assert_close(slope[6], torch.tensor(15 / 2e5), rtol=1e-3, atol=0)
