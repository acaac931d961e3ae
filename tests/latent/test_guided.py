"""Posteriors that look at log p(x, z), on the linear-Gaussian model whose evidence is known."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent import DiagonalNormal, Hamiltonian, HamiltonianPosterior, StandardNormal, estimate_log_likelihood
from attelbo.latent.distributions.hamiltonian import LogJoint

POSTERIORS = sorted(contract.FAMILIES["posterior"]["guided"])
IN_SHAPE = (3, 2, 2)
Z_DIM, BATCH = 2, 3


def rough(log_joint: LogJoint | None = None, n_leapfrog: int = 3, beta_0: float = 0.3) -> Hamiltonian:
    """From a guess that knows nothing of x."""
    base = DiagonalNormal(torch.zeros(BATCH, Z_DIM), torch.zeros(BATCH, Z_DIM).double())
    base = DiagonalNormal(base.mean.double(), base.log_std)
    q = Hamiltonian(base, torch.tensor([0.15, 0.25], dtype=torch.float64), n_leapfrog, beta_0)
    return q if log_joint is None else q.with_log_joint(log_joint)


def posterior(name: str = "hamiltonian", **given: Any) -> HamiltonianPosterior:
    given |= {"n_centroids": 2} if name == "riemannian_hamiltonian" else {}
    part = contract.build_part("posterior", name, in_shape=IN_SHAPE, latent_dim=Z_DIM, **given)
    contract.randomize(part, scale=0.15)
    return part


def features(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def quartic(z: Tensor) -> Tensor:
    """A log-density whose force is not linear."""
    return -(z.square().sum(-1) + 0.1 * z.sum(-1) ** 4)


def test_every_posterior_is_here() -> None:
    assert POSTERIORS == ["hamiltonian", "riemannian_hamiltonian"]


@pytest.mark.parametrize("beta_0", [0.3, 1.0])
@pytest.mark.parametrize("n_leapfrog", [1, 4])
def test_weights_are_unbiased(linear_gaussian: tuple[LogJoint, Tensor], n_leapfrog: int, beta_0: float) -> None:
    """E[p(x, z_L) N(rho_L) / q(z_L, rho_L)] = p(x), whatever the dynamics."""
    n = 100_000
    log_joint, log_evidence = linear_gaussian
    q = rough(log_joint, n_leapfrog, beta_0)

    def log_weights(k: int) -> Tensor:
        z, log_q = q.rsample_with_log_prob(k)
        return log_joint(z) - log_q

    estimate = estimate_log_likelihood(log_weights, n, chunk=20_000)
    assert (estimate.standard_error < 0.05).all()
    assert ((estimate.log_likelihood - log_evidence).abs() < 5 * estimate.standard_error).all()


def test_the_dynamics_tightens_the_bound(linear_gaussian: tuple[LogJoint, Tensor]) -> None:
    log_joint, log_evidence = linear_gaussian
    z, log_q = rough(log_joint).base.rsample_with_log_prob(20_000)
    before = (log_joint(z) - log_q).mean(0)
    z, log_q = rough(log_joint, n_leapfrog=5).rsample_with_log_prob(20_000)
    after = (log_joint(z) - log_q).mean(0)
    assert (before < after).all()
    assert (after < log_evidence).all()


@pytest.mark.parametrize("beta_0", [0.3, 1.0])
def test_volume_is_scaled_by_the_cooling_alone(beta_0: float) -> None:
    q = rough(quartic, n_leapfrog=4, beta_0=beta_0)
    start = torch.randn(2 * Z_DIM, dtype=torch.float64)

    def move(state: Tensor) -> Tensor:
        z, rho, _ = q.move(*state.view(2, 1, 1, Z_DIM))
        return torch.cat([z.flatten(), rho.flatten()])

    jacobian = torch.autograd.functional.jacobian(move, start)
    determinant = torch.linalg.slogdet(torch.as_tensor(jacobian)).logabsdet
    assert float(determinant) == pytest.approx(Z_DIM / 2 * math.log(beta_0), abs=1e-10)


@pytest.mark.parametrize("step_size", [0.01, 0.05, 0.49])
def test_the_step_size_at_the_start_is_the_one_asked_for(step_size: float) -> None:
    part = HamiltonianPosterior(IN_SHAPE, Z_DIM, step_size=step_size)
    torch.testing.assert_close(part(torch.randn(2, *IN_SHAPE)).step_size, torch.full(part.latent_shape, step_size))


def test_leapfrog_is_reversible() -> None:
    q = rough(quartic, n_leapfrog=6, beta_0=1.0)
    z, rho = torch.randn(2, 1, 3, Z_DIM, dtype=torch.float64)
    moved, momentum, _ = q.move(z, rho)
    assert not torch.allclose(moved, z)
    back, reversed_momentum, _ = q.move(moved, -momentum)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(reversed_momentum, -rho)


def test_leapfrog_keeps_the_energy_to_second_order() -> None:
    z, rho = torch.randn(2, 1, 50, Z_DIM, dtype=torch.float64)

    def drift(n: int) -> float:
        base = DiagonalNormal(torch.zeros(50, Z_DIM), torch.zeros(50, Z_DIM))
        q = Hamiltonian(base, torch.full((Z_DIM,), 0.5 / n, dtype=torch.float64), n, 1.0, quartic)
        moved, momentum, _ = q.move(z, rho)
        before, after = (0.5 * r.square().sum(-1) - quartic(at) for at, r in ((z, rho), (moved, momentum)))
        return float((after - before).abs().mean())

    assert drift(40) == pytest.approx(drift(20) / 4, rel=0.05)


def test_gradients_by_finite_differences() -> None:
    """Also through the force: gradients of gradients."""
    part = posterior(step_size=0.2)

    def sample_and_density(h: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        q = part(h)
        guided = Hamiltonian(q.base, 0.5 * logits.sigmoid(), q.n_leapfrog, q.beta_0, quartic)
        return guided.rsample_with_log_prob(2)

    logits = part.step_logits.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(sample_and_density, (features(2).requires_grad_(), logits), fast_mode=True)


def test_the_control_variate_has_mean_zero(linear_gaussian: tuple[LogJoint, Tensor]) -> None:
    n = 50_000
    control = rough(linear_gaussian[0]).rsample_for_kl(n)[2].control
    assert (control.mean(0).abs() < 5 * control.std(0) / n**0.5 + 1e-12).all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_parameter_is_trained_and_rows_are_independent(name: str) -> None:
    part, h = posterior(name), features(2).requires_grad_()
    z, log_q = part(h).with_log_joint(quartic).rsample_with_log_prob(3)
    (z.sum(-1) + log_q)[:, 0].sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", POSTERIORS)
def test_the_force_is_there_without_gradients(name: str, mode: Any) -> None:
    part, h = posterior(name), features()

    def draw() -> Tensor:
        torch.manual_seed(2)
        return part(h).with_log_joint(quartic).rsample(3)

    with mode():
        z = draw()
        assert not z.requires_grad
    torch.testing.assert_close(z.clone(), draw().detach())


@pytest.mark.parametrize("name", POSTERIORS)
def test_attention_in_the_decoder_has_second_derivatives(name: str) -> None:
    def log_joint(z: Tensor) -> Tensor:
        tokens = z.unflatten(-1, (1, Z_DIM, 1)).expand(*z.shape[:2], 1, Z_DIM, 8).contiguous().flatten(0, 1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1).sum(-1).unflatten(0, z.shape[:2])

    part = posterior(name)
    part(features()).with_log_joint(log_joint).rsample(2).square().sum().backward()
    assert part.step_logits.grad is not None
    assert part.step_logits.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e4, 1e6])
@pytest.mark.parametrize("name", POSTERIORS)
def test_wild_features_stay_finite(name: str, size: float) -> None:
    """Where the force is bounded, as that of a Bernoulli likelihood and a normal prior nearly is."""
    part = posterior(name).float()
    h = (size * features(8)).float().requires_grad_()
    z, log_q = part(h).with_log_joint(lambda z: -0.5 * z.square().sum(-1)).rsample_with_log_prob(2)
    kl = (log_q - StandardNormal((Z_DIM,)).log_prob(z)).sum()
    kl.backward()
    assert kl.isfinite()
    assert h.grad is not None
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_full_precision_under_autocast(name: str) -> None:
    part = posterior(name).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_q = part(features().float()).with_log_joint(quartic).rsample_with_log_prob(5)
    assert z.dtype == log_q.dtype == torch.float32


@pytest.mark.parametrize("name", POSTERIORS)
def test_it_is_compiled_as_one_graph(name: str) -> None:
    part, h = posterior(name), features()

    def draw(h: Tensor) -> tuple[Tensor, Tensor]:
        return part(h).with_log_joint(quartic).rsample_with_log_prob(2)

    found = []
    for run in (draw, torch.compile(draw, backend="eager", fullgraph=True)):
        torch.manual_seed(3)
        found.append(run(h))
    torch.testing.assert_close(found[1], found[0])


def test_without_guidance_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"^Hamiltonian dynamics needs log p\(x, z\)"):
        rough().rsample(1)
    with pytest.raises(NotImplementedError, match="density of a given z"):
        rough().log_prob(torch.zeros(1, BATCH, Z_DIM))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent_dim": 0}, r"^latent_dim must be at least 1, got 0"),
        ({"n_leapfrog": 0}, r"^n_leapfrog must be at least 1, got 0"),
        ({"step_size": 0.5}, r"^step_size must be in \(0, 0\.5\), got 0\.5"),
        ({"beta_0": 0.0}, r"^beta_0 must be in \(0, 1\], got 0"),
        ({"beta_0": 1.5}, r"^beta_0 must be in \(0, 1\], got 1\.5"),
    ],
)
def test_bad_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract.build_part("posterior", "hamiltonian", **{"in_shape": IN_SHAPE, "latent_dim": Z_DIM, **given})
