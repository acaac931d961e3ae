"""Each posterior made by flows against areas, Monte Carlo, the linear-Gaussian evidence and finite differences."""

from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.errors import ConfigError
from attelbo.latent import DReG, Normal, StandardNormal, estimate_log_likelihood
from attelbo.latent.flows import Flow, Planar, Sylvester
from attelbo.models.parts import check_objective

IN_SHAPE = (3, 2, 2)

# Whether log q(z) of any z is known.
TABLE = {"iaf": True, "planar": False, "radial": True, "sylvester": False}
NAMES = sorted(contract.FAMILIES["posterior"]["flow"])
KNOWN = [name for name in NAMES if TABLE.get(name)]


def posterior(name: str, latent_dim: int = 3) -> Any:
    sizes = {"hidden": (6,)} if name == "iaf" else {}
    part = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=latent_dim, n_flows=2, **sizes)
    return contract.randomize(part, scale=0.3)


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def test_every_posterior_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one_over_the_image_of_the_plane(name: str) -> None:
    # The cells of a grid under the normal go to cells whose areas are measured, not told by a determinant.
    points = 301
    nodes, _ = contract.grid(2, half_width=6.0, points=points)
    with torch.no_grad():
        q = posterior(name, latent_dim=2)(features(2))
        z0 = torch.addcmul(q.base.mean, q.base.std, nodes.unsqueeze(1))  # (n, B, 2)
        z, log_det = q.flow(z0, q.given)
    density = (q.base.log_prob(z0) - log_det).exp().unflatten(0, (points, points))
    corners = z.unflatten(0, (points, points))
    a, b = corners[:-1, :-1] - corners[1:, 1:], corners[1:, :-1] - corners[:-1, 1:]
    area = 0.5 * (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])  # half the product of the diagonals
    assert (area > 0).all() or (area < 0).all()  # folded nowhere
    mean = (density[:-1, :-1] + density[1:, :-1] + density[:-1, 1:] + density[1:, 1:]) / 4
    torch.testing.assert_close((mean * area.abs()).sum((0, 1)), torch.ones(2, dtype=torch.float64), rtol=3e-3, atol=0)


@pytest.mark.parametrize("name", KNOWN)
def test_density_integrates_to_one(name: str) -> None:
    with torch.no_grad():
        q = posterior(name, latent_dim=2)(features(2))
        nodes, cell = contract.grid(2, half_width=12.0, points=401)
        density = q.log_prob(nodes.unsqueeze(1).expand(-1, 2, -1)).exp()
    torch.testing.assert_close(density.sum(0) * cell, torch.ones(2, dtype=torch.float64), rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_importance_weights_of_a_known_density_average_to_one(name: str) -> None:
    # A narrow normal around the point that stands for q, inside of where q has its samples.
    n = 200_000
    with torch.no_grad():
        q = posterior(name, latent_dim=2)(features(2))
        inside = D.Independent(D.Normal(q.mean, 0.3 * q.rsample(1000).std(0)), 1)
        z, log_q = q.rsample_with_log_prob(n)
        weights = (inside.log_prob(z) - log_q).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / n**0.5).all()
    assert (weights.std(0) / n**0.5 < 0.02).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_with_their_density(name: str) -> None:
    part, h = posterior(name), features()
    torch.manual_seed(0)
    z = part(h).rsample(5)
    torch.manual_seed(0)
    q = part(h)
    assert isinstance(q, part.distribution)
    again, log_q = q.rsample_with_log_prob(5)
    assert (again == z).all()
    torch.manual_seed(0)
    torch.testing.assert_close(q.rsample_for_kl(5)[:2], (z, log_q))  # what training takes
    if TABLE[name]:
        torch.testing.assert_close(q.log_prob(z), log_q)
    else:
        with pytest.raises(NotImplementedError, match="takes the inverse of a flow"):
            q.log_prob(z)


@pytest.mark.parametrize("name", KNOWN)
def test_without_gradient_it_is_the_same_distribution(name: str) -> None:
    part = posterior(name)
    q = part(features())
    z = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    log_q = q.stop_gradient().log_prob(z)
    torch.testing.assert_close(log_q, q.log_prob(z))
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_kl_is_that_of_a_long_monte_carlo_run(name: str) -> None:
    # The same samples seen from z_0: E[log N(z_0; m, s)] is known, and the determinant is autograd's.
    n = 2000
    p = StandardNormal((3,)).double()
    with torch.no_grad():
        q = posterior(name)(features(2))
        kl = contract.kl(p, q, 200_000)
        z0 = q.base.rsample(n)
        z = q.flow(z0, q.given)[0]
        of_one = lambda z0, given: q.flow(z0.view(1, 1, -1), given.view(1, -1))[0].flatten()  # noqa: E731
        jacobian = torch.vmap(torch.vmap(torch.func.jacrev(of_one)), in_dims=(0, None))(z0, q.given)
        log_det = torch.linalg.slogdet(jacobian)[1]
        energy = 0.5 * z.square().sum(-1) - log_det - (q.base.std.log() + 0.5).sum(-1)
    assert ((kl - energy.mean(0)).abs() < 5 * energy.std(0) / n**0.5).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_point_that_stands_for_it_is_the_image_of_the_base_mean(name: str) -> None:
    q = posterior(name)(features())
    assert q.mean.shape == (4, 3)
    q.base = type(q.base)(q.base.mean, torch.full_like(q.base.mean, -9.0))  # all samples there
    torch.testing.assert_close(q.mean, q.rsample(1)[0], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_samples_and_density(name: str) -> None:
    part = posterior(name, latent_dim=2)

    def sample_and_density(h: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return part(h).rsample_with_log_prob(2)

    inputs = (features(2).requires_grad_(), *part.parameters())
    assert torch.autograd.gradcheck(sample_and_density, inputs, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_one_row_do_not_depend_on_another(name: str) -> None:
    h = features(2).requires_grad_()
    z, log_q = posterior(name)(h).rsample_with_log_prob(3)
    (z.sum(-1) + log_q)[:, 0].sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    part = posterior(name)
    contract.kl(StandardNormal((3,)).double(), part(features()), 2).sum().backward()
    for key, parameter in part.named_parameters():
        assert parameter.grad is not None
        # Of a masked layer, those that exist.
        mask = dict(part.named_buffers()).get(key.replace("weight", "mask"), torch.ones(()))
        assert ((parameter.grad != 0) == mask.expand_as(parameter).bool()).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e4, 1e6])
def test_wild_features_stay_finite(name: str, size: float) -> None:
    part = posterior(name).float()
    h = (size * features(8)).float().requires_grad_()
    kl = contract.kl(StandardNormal((3,)), part(h), 1).sum()
    kl.backward()
    assert kl.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    part, h = posterior(name).float(), features().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(h)
        z, log_q = q.rsample_with_log_prob(50)
    assert z.dtype == log_q.dtype == torch.float32
    if name == "iaf":  # its network runs in bfloat16; each scale that it gives is a sigmoid all the same
        return
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = q.rsample_with_log_prob(50)
    torch.manual_seed(0)
    torch.testing.assert_close(given, q.rsample_with_log_prob(50))


@pytest.mark.parametrize("name", NAMES)
def test_one_dimension_and_one_feature(name: str) -> None:
    part = contract.build_part("posterior", name, in_shape=(1,), latent_dim=1)
    q = part(torch.ones(2, 1, dtype=torch.float64))
    assert part.latent_shape == (1,)
    z, log_q = q.rsample_with_log_prob(4)
    assert z.shape == (4, 2, 1)
    assert log_q.shape == (4, 2)


@pytest.mark.parametrize("name", NAMES)
def test_no_latent_dimension_and_no_flow_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=0)
    with pytest.raises(ValueError, match=r"^n_flows must be at least 1, got 0"):
        contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=2, n_flows=0)


@pytest.mark.parametrize("name", NAMES)
def test_importance_estimate_converges_to_the_evidence_of_a_linear_gaussian_model(name: str) -> None:
    # x = W z + noise with std 1: log p(x) = N(x; 0, W W^T + I).
    weight = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, -0.4]], dtype=torch.float64)
    x = torch.tensor([[1.0, -0.5, 0.3], [-0.8, 0.2, 1.1]], dtype=torch.float64)
    evidence = D.MultivariateNormal(torch.zeros(3, dtype=torch.float64), weight @ weight.T + torch.eye(3)).log_prob(x)
    likelihood, prior = Normal((3,), calibration="fixed").double(), StandardNormal((2,)).double()
    with torch.no_grad():
        q = posterior(name, latent_dim=2)(0.3 * features(2))
        q.base = type(q.base)(q.base.mean, torch.full_like(q.base.mean, 1.0))  # wide enough to have all of p(z|x)

        def log_weights(k: int) -> Tensor:
            z, log_q = q.rsample_with_log_prob(k)
            return likelihood.log_prob(z @ weight.T, x) + prior.log_prob(z) - log_q

        estimate = estimate_log_likelihood(log_weights, 100_000, chunk=20_000)
    assert (estimate.standard_error < 0.04).all()
    assert ((estimate.log_likelihood - evidence).abs() < 5 * estimate.standard_error).all()


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_the_normal_that_it_is_made_from(name: str) -> None:
    q = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=3)(features())
    gate = torch.tensor(2.0, dtype=torch.float64).sigmoid()
    scale = (3 * (gate.log() / 3).tanh()).exp() ** 2 if name == "iaf" else 1.0  # its two gates
    torch.testing.assert_close(q.mean, scale * q.base.mean, rtol=1e-9, atol=0)
    z, log_q = q.rsample_with_log_prob(5)
    torch.testing.assert_close(log_q, D.Independent(D.Normal(q.mean, scale * q.base.std), 1).log_prob(z))


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_one_sample_tells_the_kl_where_the_flow_is_the_identity(name: str) -> None:
    # The control variate takes all of the noise: a flow starts with the gradients of the exact KL.
    p = StandardNormal((3,)).double()
    q = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=3)(features())
    z, log_q, reference = q.rsample_for_kl(1)
    torch.testing.assert_close((log_q - p.log_prob(z) - reference.control)[0], contract.kl(p, q.base, 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_control_has_no_mean(name: str) -> None:
    n = 100_000
    with torch.no_grad():
        q = posterior(name)(features(2))
        control = q.rsample_for_kl(n)[2].control
    assert control.shape == (n, 2)
    assert control.std() > 0.1
    assert (control.mean(0).abs() < 5 * control.std(0) / n**0.5).all()


def test_autoregressive_flows_go_through_the_dimensions_both_ways() -> None:
    q = posterior("iaf")(features(1))
    of_one = lambda z0: q.flow(z0.view(1, 1, -1), q.given)[0].flatten()  # noqa: E731
    jacobian = torch.func.jacrev(of_one)(q.mean[0])
    assert jacobian.tril(-1).abs().max() > 1e-3
    assert jacobian.triu(1).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_that_takes_the_density_of_a_given_z_is_refused_where_it_is_not_known(name: str) -> None:
    part = posterior(name)
    if TABLE[name]:
        check_objective(DReG(), part)
    else:
        with pytest.raises(ConfigError, match=r"^model/objective: DReG takes the density of a given z"):
            check_objective(DReG(), part)


@pytest.mark.parametrize("dim", [2, 64])
def test_numbers_around_one_move_z_by_as_much_in_any_number_of_dimensions(dim: int) -> None:
    """Or an optimizer that moves all numbers equally far throws z the further away the more dimensions there are."""
    z = torch.randn(100, 50, dim, dtype=torch.float64)

    def moved(flow: Flow) -> Tensor:
        return flow(z, torch.randn(50, flow.n_given, dtype=torch.float64))[0] - z

    assert 0.3 < moved(Planar(dim)).norm(dim=-1).mean() < 1.5  # along one direction
    assert 0.3 < moved(Sylvester(dim)).square().mean().sqrt() < 1.5  # along each of the dimensions
