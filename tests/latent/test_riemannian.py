"""The Riemannian Hamiltonian posterior: its metric by definition, its dynamics by autograd, its bound on the linear-
Gaussian model, whose evidence is known."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import (
    DiagonalNormal,
    Hamiltonian,
    RiemannianHamiltonian,
    RiemannianHamiltonianPosterior,
    estimate_log_likelihood,
)
from attelbo.latent.distributions.hamiltonian import LogJoint
from attelbo.latent.distributions.riemannian_hamiltonian import Metric

DIM, N_CENTROIDS, BATCH, FEATURES = 3, 4, 3, 6


def quartic(z: Tensor) -> Tensor:
    """A log-density whose force is not linear."""
    return -(z.square().sum(-1) + 0.1 * z.sum(-1) ** 4)


def curved(temperature: float = 0.8) -> Metric:
    roots = torch.randn(N_CENTROIDS, DIM, DIM, dtype=torch.float64).tril()
    centroids = torch.randn(N_CENTROIDS, DIM, dtype=torch.float64)
    return Metric(centroids, 0.5 * roots @ roots.mT, temperature, regularization=0.1)


def inverse_of(metric: Metric, z: Tensor) -> Tensor:
    """G^-1 of z (D,), by definition."""
    inverse = metric.regularization * torch.eye(len(z), dtype=z.dtype)
    for c, m in zip(metric.centroids, metric.tensors, strict=True):
        inverse = inverse + m * torch.exp(-(z - c).square().sum() / (len(z) * metric.temperature**2))
    return inverse


def guided(
    metric: Metric, log_joint: LogJoint = quartic, n_leapfrog: int = 3, beta_0: float = 0.3, n_iterations: int = 3
) -> RiemannianHamiltonian:
    """From a guess that knows nothing of x."""
    dim = metric.centroids.shape[1]
    base = DiagonalNormal(torch.zeros(BATCH, dim, dtype=torch.float64), torch.zeros(BATCH, dim, dtype=torch.float64))
    step_size = torch.linspace(0.15, 0.25, dim, dtype=torch.float64)
    q = RiemannianHamiltonian(base, step_size, n_leapfrog, beta_0, metric, n_iterations)
    return q.with_log_joint(log_joint)


def test_the_metric_and_the_momentum_by_definition() -> None:
    metric, z, rho = curved(), torch.randn(2, BATCH, DIM).double(), torch.randn(2, BATCH, DIM).double()
    inverse = torch.stack([torch.stack([inverse_of(metric, at) for at in row]) for row in z])
    here = metric.at(z)
    torch.testing.assert_close(here.root() @ here.root().mT, inverse)
    torch.testing.assert_close(here.velocity(rho, metric.turn(rho)), torch.einsum("nbij,nbj->nbi", inverse, rho))
    exact = D.MultivariateNormal(torch.zeros(DIM).double(), precision_matrix=inverse).log_prob(rho)
    torch.testing.assert_close(here.log_prob(rho) - DIM / 2 * math.log(2 * math.pi), exact)
    # rho = A noise has the covariance A A^T.
    basis = torch.eye(DIM).double().view(DIM, 1, 1, DIM).expand(-1, 2, BATCH, -1)
    a = torch.stack([here.correlate(noise) for noise in basis], dim=-1)
    torch.testing.assert_close(a @ a.mT, inverse.inverse())


def test_its_derivatives_by_autograd_and_by_finite_differences() -> None:
    metric, rho = curved(), torch.randn(1, 1, DIM).double()
    z = torch.randn(DIM).double().requires_grad_()

    def log_density(at: Tensor) -> Tensor:
        return D.MultivariateNormal(torch.zeros(DIM).double(), precision_matrix=inverse_of(metric, at)).log_prob(rho)

    def velocity(at: Tensor) -> Tensor:
        return inverse_of(metric, at) @ rho[0, 0]

    here = metric.at(z.view(1, 1, DIM))
    force = here.force(rho, metric.turn(rho), here.traces())[0, 0]
    torch.testing.assert_close(force, *torch.autograd.grad(log_density(z).sum(), z))
    bend = here.bend(metric.turn(rho))[0, 0]
    torch.testing.assert_close(bend, torch.as_tensor(torch.autograd.functional.jacobian(velocity, z)))
    steps = 1e-6 * torch.eye(DIM).double()
    with torch.no_grad():
        differences = [(log_density(z + step) - log_density(z - step)).sum() / 2e-6 for step in steps]
    torch.testing.assert_close(force, torch.stack(differences), rtol=1e-7, atol=1e-7)


def test_with_the_identity_it_is_the_hamiltonian_posterior() -> None:
    metric = Metric(torch.randn(2, DIM).double(), torch.zeros(2, DIM, DIM).double(), 1.0, 1.0)
    q = guided(metric)
    torch.manual_seed(3)
    found = q.rsample_with_log_prob(5)
    torch.manual_seed(3)
    plain = Hamiltonian(q.base, q.step_size, q.n_leapfrog, q.beta_0, quartic).rsample_with_log_prob(5)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_constant_metric_is_a_change_of_coordinates() -> None:
    """z = C y of the plain dynamics of y, where G^-1 = C C^T."""
    metric, (z, rho) = curved(temperature=1e8), torch.randn(2, 1, BATCH, DIM).double()
    c = torch.linalg.cholesky(metric.tensors.sum(0) + metric.regularization * torch.eye(DIM).double())
    q = guided(metric)
    q.step_size = torch.tensor(0.05).double()
    plain = Hamiltonian(q.base, q.step_size, q.n_leapfrog, q.beta_0, lambda y: quartic(y @ c.mT))
    moved, momentum, log_det = q.move(z, rho)
    expected, expected_momentum, _ = plain.move(z @ c.inverse().mT, rho @ c)
    torch.testing.assert_close(moved, expected @ c.mT)
    torch.testing.assert_close(momentum, expected_momentum @ c.inverse())
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-10)


@pytest.mark.parametrize("beta_0", [0.3, 1.0])
@pytest.mark.parametrize("n_iterations", [1, 2, 30])
def test_the_determinant_is_that_of_autograd_and_of_solutions_is_one(n_iterations: int, beta_0: float) -> None:
    q = guided(curved(), n_leapfrog=2, beta_0=beta_0, n_iterations=n_iterations)
    start = 0.5 * torch.randn(2 * DIM).double()

    def move(state: Tensor) -> Tensor:
        z, rho, _ = q.move(*state.view(2, 1, 1, DIM))
        return torch.cat([z.flatten(), rho.flatten()])

    jacobian = torch.as_tensor(torch.autograd.functional.jacobian(move, start))
    of_autograd = float(torch.linalg.slogdet(jacobian).logabsdet) - DIM / 2 * math.log(beta_0)
    assert float(q.move(*start.view(2, 1, 1, DIM))[2]) == pytest.approx(of_autograd, abs=1e-10)
    if n_iterations == 30:
        assert of_autograd == pytest.approx(0.0, abs=1e-10)
    else:
        assert abs(of_autograd) > 1e-5


@pytest.mark.parametrize("n_iterations", [1, 3])
def test_weights_are_unbiased_and_the_bound_is_tighter(
    linear_gaussian: tuple[LogJoint, Tensor], n_iterations: int
) -> None:
    """E[p(x, z_L) N(rho_L; 0, G(z_L)) / q(z_L, rho_L)] = p(x), also where the implicit equations are not solved."""
    n = 20_000
    log_joint, log_evidence = linear_gaussian
    metric = Metric(
        torch.tensor([[0.0, 1.0], [1.0, -1.0]]).double(),
        torch.tensor([[[1.0, 0.3], [0.3, 0.5]], [[0.6, -0.2], [-0.2, 0.9]]]).double(),
        temperature=1.0,
        regularization=0.1,
    )
    q = guided(metric, log_joint, n_iterations=n_iterations)

    def log_weights(k: int) -> Tensor:
        z, log_q = q.rsample_with_log_prob(k)
        return log_joint(z) - log_q

    estimate = estimate_log_likelihood(log_weights, n, chunk=n)
    assert (estimate.standard_error < 0.03).all()
    assert ((estimate.log_likelihood - log_evidence).abs() < 4 * estimate.standard_error).all()
    z, log_q = q.base.rsample_with_log_prob(n)
    assert ((log_joint(z) - log_q).mean(0) < log_weights(n).mean(0)).all()


def test_steps_are_reversible() -> None:
    q = guided(curved(), n_leapfrog=4, beta_0=1.0, n_iterations=50)
    z, rho = 0.5 * torch.randn(2, 1, BATCH, DIM).double()
    moved, momentum, _ = q.move(z, rho)
    assert (moved - z).abs().min() > 1e-3
    back, reversed_momentum, _ = q.move(moved, -momentum)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(reversed_momentum, -rho)


def test_steps_keep_the_energy_to_second_order() -> None:
    metric, (z, rho) = curved(), torch.randn(2, 1, BATCH, DIM).double()

    def drift(n: int) -> float:
        q = guided(metric, n_leapfrog=n, beta_0=1.0, n_iterations=10)
        q.step_size = torch.full((DIM,), 0.5 / n).double()
        moved, momentum, _ = q.move(z, rho)
        before, after = (quartic(at) + metric.at(at).log_prob(r) for at, r in ((z, rho), (moved, momentum)))
        return float((after - before).abs().mean())

    assert drift(40) == pytest.approx(drift(20) / 4, rel=0.05)


def test_gradients_by_finite_differences() -> None:
    part = contract.build_part(
        "posterior", "riemannian_hamiltonian", in_shape=(FEATURES,), latent_dim=2, n_centroids=2, n_iterations=2
    )
    contract.randomize(part, scale=0.15)
    names, values = zip(*part.named_parameters(), strict=True)

    def sample_and_density(h: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        q = torch.func.functional_call(part, dict(zip(names, given, strict=True)), (h,))
        return q.with_log_joint(quartic).rsample_with_log_prob(2)

    inputs = [t.detach().clone().requires_grad_() for t in (torch.randn(2, FEATURES).double(), *values)]
    assert torch.autograd.gradcheck(sample_and_density, inputs, fast_mode=True)


def test_autocast_does_not_round_the_metric() -> None:
    q = RiemannianHamiltonianPosterior((FEATURES,), 2)(torch.randn(3, FEATURES)).with_log_joint(quartic)
    found = []
    for enabled in (False, True):
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found.append(q.rsample_with_log_prob(4))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("latent_dim", [1, 5])
def test_at_the_start_the_metric_is_the_identity_on_average(latent_dim: int) -> None:
    part = RiemannianHamiltonianPosterior((FEATURES,), latent_dim, regularization=0.01)
    inverses = torch.stack([inverse_of(part.metric, c) for c in part.centroids])
    torch.testing.assert_close(inverses.mean(0), 1.01 * torch.eye(latent_dim))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_centroids": 0}, r"^n_centroids must be at least 1, got 0"),
        ({"n_iterations": 0}, r"^n_iterations must be at least 1, got 0"),
        ({"temperature": 0.0}, r"^temperature must be positive and finite, got 0"),
        ({"regularization": -1.0}, r"^regularization must be positive and finite, got -1"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RiemannianHamiltonianPosterior((FEATURES,), 2, **given)
