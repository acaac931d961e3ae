"""Each registered posterior against torch.distributions, quadrature and finite differences."""

from collections.abc import Callable
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import DiagonalNormal, FullNormalPosterior, LowRankNormal, LowRankNormalPosterior, StandardNormal

IN_SHAPE = (3, 2, 2)

# The distribution of torch's own that q stands for, from what q shows of itself.
TABLE: dict[str, Callable[[Any], Any]] = {
    "diagonal_normal": lambda q: D.Independent(D.Normal(q.mean, q.log_std.exp()), 1),
    "full_normal": lambda q: D.MultivariateNormal(q.mean, scale_tril=q.scale_tril),
    "low_rank_normal": lambda q: D.LowRankMultivariateNormal(
        q.mean, q.std.unsqueeze(-1) * q.directions, q.std.square()
    ),
}
NAMES = sorted(contract.FAMILIES["posterior"]["normal"])


def posterior(name: str, latent_dim: int = 3) -> Any:
    return contract.randomize(
        contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=latent_dim), scale=0.15
    )


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def test_every_posterior_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_starts_nearly_diagonal_with_means_and_stds_that_follow_the_features(name: str) -> None:
    part = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=3)
    q = TABLE[name](part(3 * features(500)))
    covariance = getattr(q, "covariance_matrix", torch.diag_embed(q.variance))
    correlation = covariance / (q.stddev.unsqueeze(-1) * q.stddev.unsqueeze(-2)) - torch.eye(3)
    assert correlation.square().mean().sqrt() < 0.2
    assert q.mean.std(0).min() > 0.5
    assert q.stddev.log().std(0).min() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_that_of_torch(name: str) -> None:
    q = posterior(name)(features())
    z = 2 * torch.randn(5, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), TABLE[name](q).log_prob(z))


@pytest.mark.parametrize("name", NAMES)
def test_density_of_each_z_under_each_q(name: str) -> None:
    q, z = posterior(name)(features()), 2 * torch.randn(5, 3, dtype=torch.float64)
    one_by_one = torch.cat([q.log_prob(one.expand(1, 4, 3)) for one in z])
    torch.testing.assert_close(q.cross_log_prob(z), one_by_one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_z", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_density_of_each_z_is_no_less_precise_than_that_of_its_own(dtype: torch.dtype, of_z: torch.dtype) -> None:
    q, z = DiagonalNormal(torch.randn(4, 30).to(dtype), torch.randn(4, 30).to(dtype)), torch.randn(5, 30).to(of_z)
    torch.testing.assert_close(q.cross_log_prob(z), q.log_prob(z.unsqueeze(1).expand(-1, 4, -1)))


def test_density_of_narrow_normals_far_from_zero_is_exact_in_float32() -> None:
    mean, log_std = 10 + torch.randn(4, 3), torch.full((4, 3), -5.0)
    z = mean + 0.01 * torch.randn(4, 3)
    normal = D.Normal(mean.double(), log_std.double().exp())
    expected = normal.log_prob(z.double().unsqueeze(1)).sum(-1).float()
    torch.testing.assert_close(DiagonalNormal(mean, log_std).cross_log_prob(z), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name: str) -> None:
    q = posterior(name, latent_dim=2)(features(3))
    nodes, cell = contract.grid(2, half_width=20.0, points=601)
    density = q.log_prob(nodes.unsqueeze(1).expand(-1, 3, -1)).exp()
    torch.testing.assert_close(density.sum(0) * cell, torch.ones(3, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments_of_torch(name: str) -> None:
    n = 200_000
    q = posterior(name)(features(2))
    reference = TABLE[name](q)
    z = q.rsample(n).detach()
    assert z.shape == (n, 2, 3)
    standard_error = (reference.variance / n).sqrt()
    assert ((z.mean(0) - reference.mean).abs() < 5 * standard_error).all()
    expected = getattr(reference, "covariance_matrix", torch.diag_embed(reference.variance))
    scale = reference.stddev.unsqueeze(-1) * reference.stddev.unsqueeze(-2)
    for row in range(2):
        error = (torch.cov(z[:, row].T) - expected[row]).abs() / scale[row]
        assert error.max() < 5 * (2 / n) ** 0.5
    assert (q.mean == reference.mean).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_with_their_density_are_samples_and_their_density(name: str) -> None:
    part, h = posterior(name), features()

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
    torch.manual_seed(0)
    torch.testing.assert_close(part(h).rsample_for_kl(5)[:2], (z, log_q))


@pytest.mark.parametrize("name", NAMES)
def test_without_gradient_it_is_the_same_distribution(name: str) -> None:
    part = posterior(name)
    q = part(features())
    assert isinstance(q, part.distribution)
    z = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    log_q = q.stop_gradient().log_prob(z)
    assert (log_q == q.log_prob(z)).all()
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_samples_and_density(name: str) -> None:
    part = posterior(name)

    def sample_and_density(h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        q = part(h)
        return q.rsample(2), q.log_prob(z)

    z = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_and_density, (features(2).requires_grad_(), z))


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_one_row_do_not_depend_on_another(name: str) -> None:
    h = features(2).requires_grad_()
    posterior(name)(h).rsample(3)[:, 0].sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    part = posterior(name)
    q = part(features())
    (q.rsample(1).square().sum() + q.log_prob(torch.zeros(1, 4, 3, dtype=torch.float64)).sum()).backward()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e4, 1e6])
def test_wild_features_stay_finite(name: str, size: float) -> None:
    part = posterior(name).float()
    h = (size * features(8)).float().requires_grad_()
    q = part(h)
    kl = contract.kl(StandardNormal((3,)), q, 1).sum()
    kl.backward()
    assert kl.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    part = posterior(name).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(features().float())
        z = q.rsample(50)
        log_prob = q.log_prob(z)
    assert z.dtype == log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, TABLE[name](q).log_prob(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_one_dimension_and_one_feature(name: str) -> None:
    part = contract.build_part("posterior", name, in_shape=(1,), latent_dim=1)
    q = part(torch.ones(2, 1, dtype=torch.float64))
    assert part.latent_shape == (1,)
    assert q.rsample(4).shape == (4, 2, 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_latent_dimension_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=0)


def test_full_normal_factor_is_lower_triangular_and_starts_diagonal() -> None:
    part = FullNormalPosterior(IN_SHAPE, 4).double()
    initial = part(features()).scale_tril
    torch.testing.assert_close(initial, torch.diag_embed(initial.diagonal(dim1=-2, dim2=-1)))
    factor = contract.randomize(part)(features()).scale_tril
    assert (factor.triu(1) == 0).all()
    assert (factor.tril(-1).abs().sum((1, 2)) > 0).all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_low_rank_normal_stays_exact_where_one_direction_is_long() -> None:
    # In float32, along a direction 100 times as long as the others: |w|^2 - w^T V y would be off by 0.05 nats.
    mean, log_std, directions = torch.zeros(1, 8), torch.zeros(1, 8), torch.full((1, 8, 1), 100.0)
    directions[0, 0] = 0.0
    q = LowRankNormal(mean, log_std, directions)
    z = q.rsample(1000)
    exact = LowRankNormal(mean.double(), log_std.double(), directions.double()).log_prob(z.double())
    torch.testing.assert_close(q.log_prob(z).double(), exact, rtol=0, atol=1e-4)


def test_low_rank_normal_has_no_more_directions_than_dimensions() -> None:
    assert LowRankNormalPosterior(IN_SHAPE, 3, rank=7).rank == 3
    assert LowRankNormalPosterior(IN_SHAPE, 9, rank=7)(features().float()).directions.shape == (4, 9, 7)
    with pytest.raises(ValueError, match=r"^rank must be at least 1, got 0"):
        LowRankNormalPosterior(IN_SHAPE, 3, rank=0)
