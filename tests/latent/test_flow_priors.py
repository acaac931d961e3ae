"""Each prior made by flows against quadrature, Monte Carlo, the standard normal that it starts as."""

from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import DiagonalNormal, StandardNormal

# Far enough from the start that the density is no normal, near enough for a grid.
TABLE = {"iaf": 0.25, "maf": 0.25, "real_nvp": 0.25}
NAMES = sorted(contract.FAMILIES["prior"]["flow"])


def initial(name: str, *latent_shape: int) -> Any:
    return contract.build_part("prior", name, latent_shape=latent_shape, n_flows=3, hidden=(8,))


def prior(name: str, *latent_shape: int) -> Any:
    return contract.randomize(initial(name, *latent_shape), scale=TABLE[name])


def test_every_prior_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("latent_shape", [(3,), (2, 2, 3)])
def test_starts_as_the_standard_normal(name: str, latent_shape: tuple[int, ...]) -> None:
    p, reference = initial(name, *latent_shape), StandardNormal(latent_shape).double()
    z = 2 * torch.randn(5, 4, *latent_shape, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(z), reference.log_prob(z))
    torch.manual_seed(0)
    samples = p.sample(6)
    torch.manual_seed(0)
    torch.testing.assert_close(samples, reference.sample(6))


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name: str) -> None:
    nodes, cell = contract.grid(2, half_width=15.0, points=401)
    with torch.no_grad():
        density = prior(name, 2).log_prob(nodes.unsqueeze(1)).exp()
    assert float(density.sum()) * cell == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_density(name: str) -> None:
    n = 100_000
    nodes, cell = contract.grid(2, half_width=15.0, points=301)
    with torch.no_grad():
        p = prior(name, 2)
        z = p.sample(n)
        mass = p.log_prob(nodes.unsqueeze(1)).exp() * cell  # (points^2, 1)
        log_p = p.log_prob(z.unsqueeze(1)).squeeze(1)
    assert z.shape == (n, 2)
    assert z.dtype == torch.float64
    # Mean, spread and entropy, each an integral of the density.
    features = torch.cat([nodes, nodes.square(), nodes[:, :1] * nodes[:, 1:], mass.clamp(min=1e-300).log()], dim=1)
    log_p = log_p.unsqueeze(1) + torch.log(torch.tensor(cell, dtype=torch.float64))
    sampled = torch.cat([z, z.square(), z[:, :1] * z[:, 1:], log_p], dim=1)
    expected = (mass * features).sum(0)
    assert ((sampled.mean(0) - expected).abs() < 5 * sampled.std(0) / n**0.5 + 0.003).all()


@pytest.mark.parametrize("name", NAMES)
def test_density_is_that_of_where_samples_come_from(name: str) -> None:
    # By the determinant of the map from noise to sample, by autograd.
    p = prior(name, 2, 2)
    of_one = lambda u: p.flow(u.view(1, 1, -1), u.new_empty(1, 0))[0].flatten()  # noqa: E731
    for u in torch.randn(5, 4, dtype=torch.float64):
        _, log_det = torch.linalg.slogdet(torch.func.jacrev(of_one)(u))
        expected = D.Normal(0.0, 1.0).log_prob(u).sum() - log_det
        torch.testing.assert_close(p.log_prob(of_one(u).view(1, 1, 2, 2))[0, 0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_kl_is_that_of_quadrature(name: str) -> None:
    n = 100_000
    mean, log_std = torch.randn(2, 2, 2, dtype=torch.float64)
    nodes, cell = contract.grid(2, half_width=8.0, points=201)
    with torch.no_grad():
        p, q = prior(name, 2), DiagonalNormal(mean, 0.3 * log_std)
        assert p.exact_kl(q) is None
        z = torch.addcmul(q.mean, q.std, nodes.unsqueeze(1))  # (n, B, 2)
        log_q = D.Independent(D.Normal(q.mean, q.std), 1).log_prob(z)
        log_ratio = log_q - p.log_prob(z)
        weights = log_q.exp() * q.std.prod(-1) * cell
        exact = (weights * log_ratio).sum(0)
        spread = (weights * (log_ratio - exact).square()).sum(0).sqrt()
        kl = contract.kl(p, q, n)
    assert ((kl - exact).abs() < 5 * spread / n**0.5).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_density_and_kl(name: str) -> None:
    p = prior(name, 2)

    def density_and_kl(z: Tensor, mean: Tensor, log_std: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return p.log_prob(z), contract.kl(p, DiagonalNormal(mean, log_std), 2)

    mean, log_std = torch.randn(2, 3, 2, dtype=torch.float64)
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    inputs = (z.requires_grad_(), mean.requires_grad_(), log_std.requires_grad_(), *p.parameters())
    assert torch.autograd.gradcheck(density_and_kl, inputs, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    p = prior(name, 3)
    z = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    p.log_prob(z).sum().backward()
    assert z.grad is not None
    for key, parameter in p.named_parameters():
        assert parameter.grad is not None
        # Of a masked layer, those that exist.
        mask = dict(p.named_buffers()).get(key.replace("weight", "mask"), torch.ones(()))
        assert ((parameter.grad != 0) == mask.expand_as(parameter).bool()).all()


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    # The network runs in bfloat16; the density of what it then is, is summed in float32.
    p = prior(name, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p = p.log_prob(torch.randn(5, 4, 3))
        z = p.sample(4)
    assert z.dtype == log_p.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_far_point_keeps_a_finite_density(name: str) -> None:
    p = prior(name, 2).float()
    z = torch.full((1, 1, 2), 1e4, requires_grad=True)
    p.log_prob(z).sum().backward()
    assert p.log_prob(z).isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_flow_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^n_flows must be at least 1, got 0"):
        contract.build_part("prior", name, latent_shape=(2,), n_flows=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_sample_tells_the_kl_where_the_prior_is_the_standard_normal(name: str) -> None:
    p, q = initial(name, 3), DiagonalNormal(*torch.randn(2, 4, 3, dtype=torch.float64))
    z, log_q, reference = q.rsample_for_kl(1)
    sampled = (log_q - p.log_prob(z) - reference.control)[0]
    torch.testing.assert_close(sampled, contract.kl(StandardNormal((3,)).double(), q, 1))
