"""Latents in hyperbolic space against the textbook's formulas in the ball, and quadrature over the disk."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import WrappedNormal, WrappedNormalPosterior, WrappedNormalPrior, sampled_kl
from attelbo.latent.hyperbolic import distance, length, log_volume, to_ball, translate
from attelbo.latent.posteriors.base import flat_features
from attelbo.latent.spaces import Ball

POSTERIORS = sorted(contract.FAMILIES["posterior"]["hyperbolic"])
PRIORS = sorted(contract.FAMILIES["prior"]["hyperbolic"])
CURVATURES = [0.3, 1.0, 2.5]
IN_SHAPE = (3, 2, 2)


def posterior(latent_dim: int = 3, **given: Any) -> WrappedNormalPosterior:
    part = contract.build_part("posterior", "wrapped_normal", in_shape=IN_SHAPE, latent_dim=latent_dim, **given)
    contract.randomize(part, scale=0.15)
    return part


def prior(dim: int, curvature: float = 1.0, **given: Any) -> WrappedNormalPrior:
    space = Ball((dim,), curvature)
    return contract.build_part("prior", "wrapped_normal", latent_shape=(dim,), space=space, **given)


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def points(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_every_part_is_here() -> None:
    assert POSTERIORS == PRIORS == ["wrapped_normal"]


# -- the space, in the coordinates of the ball ----------------------------------------------------------


def moebius_add(u: Tensor, w: Tensor, c: float) -> Tensor:
    uw, uu, ww = ((s * t).sum(-1, keepdim=True) for s, t in ((u, w), (u, u), (w, w)))
    return ((1 + 2 * c * uw + c * ww) * u + (1 - c * uu) * w) / (1 + 2 * c * uw + c**2 * uu * ww)


@pytest.mark.parametrize("c", CURVATURES)
def test_translations_are_moebius_additions(c: float) -> None:
    z, other = points(50, 3), points(50, 3)
    torch.testing.assert_close(to_ball(translate(z, other, c), c), moebius_add(to_ball(z, c), to_ball(other, c), c))


@pytest.mark.parametrize("c", CURVATURES)
def test_distances_are_those_of_the_ball(c: float) -> None:
    z, other = points(50, 3), points(50, 3)
    u, w = to_ball(z, c), to_ball(other, c)
    square = (u - w).square().sum(-1) / ((1 - c * u.square().sum(-1)) * (1 - c * w.square().sum(-1)))
    torch.testing.assert_close(distance(z, other, c), (1 + 2 * c * square).acosh() / math.sqrt(c))
    torch.testing.assert_close(length(z), distance(torch.zeros_like(z), z, c))
    by = points(50, 3)
    torch.testing.assert_close(distance(translate(by, z, c), translate(by, other, c), c), distance(z, other, c))
    torch.testing.assert_close(translate(-by, translate(by, z, c), c), z)


@pytest.mark.parametrize("c", CURVATURES)
def test_the_exponential_map_is_that_of_the_ball(c: float) -> None:
    """exp_mu(u) = mu (+) tanh(sqrt(c) lambda |u| / 2) u / (sqrt(c) |u|), of u carried from the origin: u = v / lambda
    where it has the length |v| (Mathieu et al. 2019, sec. 2)."""
    mu, v = points(50, 3), points(50, 3)
    at = to_ball(mu, c)
    factor = 2 / (1 - c * at.square().sum(-1, keepdim=True))
    u = v / factor
    norm = u.norm(dim=-1, keepdim=True)
    step = (math.sqrt(c) * factor * norm / 2).tanh() * u / (math.sqrt(c) * norm)
    torch.testing.assert_close(to_ball(translate(mu, v, c), c), moebius_add(at, step, c))


@pytest.mark.parametrize("c", CURVATURES)
def test_volume_is_the_jacobian_of_the_map_to_the_ball(c: float) -> None:
    for z in (points(20, 3), 1e-3 * points(20, 3)):
        jacobian = torch.stack([torch.autograd.functional.jacobian(lambda t: to_ball(t, c), row) for row in z])
        factor = 2 / (1 - c * to_ball(z, c).square().sum(-1))
        expected = torch.linalg.slogdet(jacobian).logabsdet + 3 * factor.log()
        torch.testing.assert_close(log_volume(z, c), expected, rtol=1e-7, atol=1e-10)


def test_volume_on_both_sides_of_the_series() -> None:
    r = torch.tensor([1e-2, 0.1, 0.2499, 0.2501, 3.0, 100.0], dtype=torch.float64)
    z = r.unsqueeze(-1) * torch.tensor([0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(log_volume(z, 1.0), (r.sinh() / r).log(), rtol=1e-8, atol=1e-12)
    assert 0 <= log_volume(torch.zeros(1, 2), 1.0) < 1e-37
    assert log_volume(torch.tensor([[500.0, 0.0]]), 1.0) == pytest.approx(500 - math.log(1000))


def test_nothing_is_lost_far_from_the_origin_in_float32() -> None:
    """Distances of 60, where the ball in float32 ends at 17."""
    mu, v = 30 * torch.nn.functional.normalize(torch.randn(2, 20, 4), dim=-1)
    z = translate(mu, v, 1.0)
    exact = translate(mu.double(), v.double(), 1.0)
    torch.testing.assert_close(z.double(), exact, rtol=1e-4, atol=1e-4)
    assert length(z).max() > 50


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1e4])
def test_gradients_stay_finite_at_the_origin_and_far_away(size: float) -> None:
    by, z = (size * torch.randn(2, 5, 3)).requires_grad_(), (size * torch.randn(2, 5, 3)).requires_grad_()
    moved = translate(by, z, 1.0)
    (moved.sum() + log_volume(moved, 1.0).sum()).backward()
    for leaf in (by, z):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("c", CURVATURES)
def test_gradients_of_the_maps(c: float) -> None:
    by, z = points(3, 2).requires_grad_(), points(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: (translate(s, t, c), log_volume(t, c), to_ball(t, c)), (by, z))


# -- densities -----------------------------------------------------------------------------------------


def disk(c: float) -> tuple[Tensor, Tensor]:
    """Points of the hyperbolic plane in polar coordinates, (N, 2), and the area that each stands for."""
    step, n_angles = 0.02, 200
    radius = (torch.arange(1000, dtype=torch.float64) + 0.5) * step
    angle = torch.arange(n_angles, dtype=torch.float64) * (2 * math.pi / n_angles)
    rays = torch.stack([angle.cos(), angle.sin()], -1)
    # The circle of radius r has the length 2 pi sinh(sqrt(c) r) / sqrt(c).
    area = (math.sqrt(c) * radius).sinh() / math.sqrt(c) * step * (2 * math.pi / n_angles)
    return (radius.view(-1, 1, 1) * rays).flatten(0, 1), area.repeat_interleave(n_angles)


@pytest.mark.parametrize("c", CURVATURES)
def test_densities_integrate_to_one_over_the_disk(c: float) -> None:
    q = WrappedNormal(0.8 * points(3, 2), 0.3 * points(3, 2), c)
    nodes, area = disk(c)
    for log_density in (q.log_prob(nodes.unsqueeze(1)), prior(2, c, std=0.7).log_prob(nodes.unsqueeze(1))):
        total = (log_density.exp() * area.unsqueeze(-1)).sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-3, atol=0)


def test_density_in_the_ball_integrates_to_one_as_well() -> None:
    """By the density with respect to the Lebesgue measure of the ball: times the conformal factor to the power D."""
    c = 1.0
    nodes, cell = contract.grid(2, half_width=1.0, points=1201)
    nodes = nodes[nodes.norm(dim=-1) < 1]
    radius = nodes.norm(dim=-1, keepdim=True)
    z = nodes * (2 * radius.atanh() / radius.clamp(min=1e-12))  # the logarithmic map
    factor = 2 / (1 - radius.square()).squeeze(-1)
    q = WrappedNormal(0.5 * points(2, 2), torch.full((2, 2), -0.5, dtype=torch.float64), c)
    density = q.log_prob(z.unsqueeze(1)).exp() * factor.square().unsqueeze(-1)
    torch.testing.assert_close(density.sum(0) * cell, torch.ones(2, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_samples_are_a_normal_around_mu(c: float) -> None:
    n = 50_000
    q = WrappedNormal(points(2, 3), 0.5 * points(2, 3), c)
    v = translate(-q.mean, q.rsample(n), c)
    std = q.tangent.std
    assert (v.mean(0).abs() < 5 * std / n**0.5).all()
    assert ((v.var(0) / std.square() - 1).abs() < 5 * (2 / n) ** 0.5).all()
    for row in range(2):
        correlation = torch.corrcoef(v[:, row].T) - torch.eye(3)
        assert correlation.abs().max() < 5 / n**0.5


def test_log_prob_is_that_of_the_paper() -> None:
    """log N(v; 0, Sigma) + (D - 1) log(sqrt(c) d / sinh(sqrt(c) d)), eq. 12 of Mathieu et al."""
    c = 1.7
    q, z = WrappedNormal(points(4, 3), 0.5 * points(4, 3), c), points(5, 4, 3)
    d = math.sqrt(c) * distance(q.mean, z, c)
    normal = D.Independent(D.Normal(torch.zeros_like(q.mean), q.tangent.std), 1)
    expected = normal.log_prob(translate(-q.mean, z, c)) + 2 * (d / d.sinh()).log()
    torch.testing.assert_close(q.log_prob(z), expected)


def test_in_flat_space_it_is_the_normal() -> None:
    q, z = WrappedNormal(points(4, 3), 0.5 * points(4, 3), 1e-9), points(5, 4, 3)
    flat = D.Independent(D.Normal(q.mean, q.tangent.std), 1)
    torch.testing.assert_close(q.log_prob(z), flat.log_prob(z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("c", CURVATURES)
def test_kl_is_that_of_quadrature(c: float) -> None:
    n = 100_000
    q, p = WrappedNormal(0.7 * points(2, 2), 0.3 * points(2, 2), c), prior(2, c)
    nodes, area = disk(c)
    log_q, log_p = q.log_prob(nodes.unsqueeze(1)), p.log_prob(nodes.unsqueeze(1))
    expected = (log_q.exp() * (log_q - log_p) * area.unsqueeze(-1)).sum(0)
    z, drawn_log_q = q.rsample_with_log_prob(n)
    standard_error = (drawn_log_q - p.log_prob(z)).std(0) / n**0.5
    assert ((sampled_kl(p, q, n) - expected).abs() < 5 * standard_error + 1e-3).all()
    at_origin = WrappedNormal(torch.zeros(1, 2), torch.zeros(1, 2), c)
    torch.testing.assert_close(sampled_kl(p, at_origin, 7), torch.zeros(1))


# -- the parts -----------------------------------------------------------------------------------------


def test_samples_with_their_density_are_samples_and_their_density() -> None:
    part, h = posterior(), features()

    def gradients(z: Tensor, log_q: Tensor) -> list[Tensor]:
        part.zero_grad()
        (z.square().sum(-1) * log_q).sum().backward()
        return [torch.as_tensor(parameter.grad).clone() for parameter in part.parameters()]

    torch.manual_seed(0)
    q = part(h)
    z = q.rsample(5)
    log_q = q.log_prob(z)
    torch.manual_seed(0)
    together = part(h).rsample_with_log_prob(5)
    torch.testing.assert_close(together, (z, log_q))
    torch.testing.assert_close(gradients(*together), gradients(z, log_q))


def test_gradients_through_samples_and_density() -> None:
    part = posterior()

    def sample_and_density(h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        q = part(h)
        return q.rsample(2), q.log_prob(z)

    z = points(2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(sample_and_density, (features(2).requires_grad_(), z), fast_mode=True)


def test_without_gradient_it_is_the_same_distribution() -> None:
    part = posterior()
    q, z = part(features()), points(5, 4, 3).requires_grad_()
    log_q = q.stop_gradient().log_prob(z)
    assert (log_q == q.log_prob(z)).all()
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


def test_every_parameter_is_trained_and_rows_are_independent() -> None:
    part, h = posterior(), features(2).requires_grad_()
    assert part.space == Ball((3,), 1.0)
    part(h).rsample(3)[:, 0].sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()
    assert all((parameter.grad != 0).all() for parameter in part.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in part.parameters())


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_wild_features_stay_finite(size: float) -> None:
    part = posterior().float()
    h = (size * features(8)).float().requires_grad_()
    kl = contract.kl(prior(3).float(), part(h), 1).sum()
    kl.backward()
    assert kl.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("c", CURVATURES)
def test_the_center_stays_where_float32_has_digits(c: float) -> None:
    part, h = posterior(curvature=c).float(), features(64).float()
    near, far = part(h), part(1e3 * h)
    torch.testing.assert_close(near.mu, part.head(flat_features(h)).chunk(2, -1)[0])
    mu = part.head(flat_features(1e3 * h)).chunk(2, -1)[0]
    torch.testing.assert_close(math.sqrt(c) * far.mu.norm(dim=-1), torch.full((64,), 12.0))
    torch.testing.assert_close(torch.cosine_similarity(far.mu, mu, dim=-1), torch.ones(64))
    q = WrappedNormal(far.mu, torch.zeros_like(far.mu), c)
    z, log_q = q.rsample_with_log_prob(100)
    assert (q.log_prob(z) - log_q).abs().mean() < 0.1


def test_full_precision_under_autocast() -> None:
    part = posterior().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(features().float())
        z, log_q = q.rsample_with_log_prob(50)
        log_p = prior(3).float().log_prob(z)
    assert z.dtype == log_q.dtype == log_p.dtype == torch.float32
    exact = WrappedNormal(q.mu.double(), q.tangent.log_std.double(), 1.0)
    torch.testing.assert_close(log_q.double(), exact.log_prob(z.double()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("std", [1.0, 0.5])
def test_samples_of_the_prior(std: float) -> None:
    n = 50_000
    p = prior(3, std=std)
    z = p.sample(n)
    assert z.shape == (n, 3)
    assert z.dtype == torch.float64
    # log p(z) + the volume is a normal's density at z.
    expected = D.Normal(0.0, std).log_prob(z).sum(-1)
    torch.testing.assert_close(p.log_prob(z.unsqueeze(1)).squeeze(1) + log_volume(z, 1.0), expected)
    assert (z.mean(0).abs() < 5 * std / n**0.5).all()
    assert ((z.var(0) / std**2 - 1).abs() < 5 * (2 / n) ** 0.5).all()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        posterior(0)
    with pytest.raises(ValueError, match=r"^curvature must be positive and finite, got 0"):
        posterior(curvature=0.0)
    with pytest.raises(ValueError, match=r"^std must be positive and finite, got -1"):
        prior(2, std=-1.0)
