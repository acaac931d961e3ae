"""Latents that are positive numbers, against scipy, closed forms and finite differences."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor
from torch import distributions as D

from attelbo.latent import DiagonalNormal, Gamma, GammaPosterior, GammaPrior, sampled_kl
from attelbo.latent.spaces import Positive, Real

POSTERIORS = sorted(contract.FAMILIES["posterior"]["positive"])
PRIORS = sorted(contract.FAMILIES["prior"]["positive"])
IN_SHAPE = (3, 2, 2)
CONCENTRATIONS = [0.2, 1.0, 7.0, 400.0]


def posterior(latent_dim: int = 3) -> GammaPosterior:
    part = contract.build_part("posterior", "gamma", in_shape=IN_SHAPE, latent_dim=latent_dim)
    contract.randomize(part, scale=0.3)
    return part


def features(batch: int = 4) -> Tensor:
    return torch.randn(batch, *IN_SHAPE, dtype=torch.float64)


def gamma(concentration: float, rate: float = 1.0, dtype: torch.dtype = torch.float64) -> Gamma:
    """One in one dimension."""
    return Gamma(torch.full((1, 1), concentration, dtype=dtype), torch.full((1, 1), rate, dtype=dtype))


def prior(*latent_shape: int, **given: Any) -> GammaPrior:
    return contract.build_part("prior", "gamma", latent_shape=latent_shape, **given)


def test_every_part_is_here() -> None:
    assert POSTERIORS == PRIORS == ["gamma"]
    assert posterior().space == Positive((3,))
    assert GammaPrior.spaces == (Positive,)
    assert not isinstance(posterior().space, Real)


# -- the distribution --------------------------------------------------------------------------------------


def test_log_prob_is_that_of_scipy() -> None:
    q, z = posterior()(features()), torch.rand(5, 4, 3, dtype=torch.float64).mul(4).exp() - 1
    theirs = stats.gamma(q.concentration.detach(), scale=1 / q.rate.detach()).logpdf(z).sum(-1)
    torch.testing.assert_close(q.log_prob(z).detach(), torch.from_numpy(theirs))
    p = prior(3, concentration=0.7, rate=2.5)
    torch.testing.assert_close(p.log_prob(z), torch.from_numpy(stats.gamma(0.7, scale=0.4).logpdf(z).sum(-1)))
    one_by_one = torch.cat([q.log_prob(one.expand(1, 4, 3)) for one in z[:, 0]])
    torch.testing.assert_close(q.cross_log_prob(z[:, 0]), one_by_one)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_samples_have_the_distribution_of_scipy(concentration: float) -> None:
    p = prior(2, concentration=concentration, rate=3.0).float()
    for z in (gamma(concentration, 3.0, torch.float32).rsample(20_000).flatten(), p.sample(20_000)[:, 1]):
        assert z.dtype == torch.float32
        assert (z > 0).all()
        assert stats.kstest(z.numpy(), stats.gamma(concentration, scale=1 / 3).cdf).pvalue > 1e-4


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_samples_keep_the_value_of_their_distribution_function(concentration: float) -> None:
    a, b = (torch.full((1, 1), value, dtype=torch.float64, requires_grad=True) for value in (concentration, 2.0))
    step = 1e-4 * concentration
    for z in Gamma(a, b).rsample(50).flatten():
        of_a, of_b = torch.autograd.grad(z, (a, b), retain_graph=True)
        level = special.gammainc(concentration, 2 * float(z.detach()))
        if not 1e-6 < level < 1 - 1e-6:  # where the inverse of scipy has few digits
            continue
        moved = [float(special.gammaincinv(concentration + sign * step, level)) / 2 for sign in (1, -1)]
        assert float(of_a) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=2e-3)
        assert float(of_b) == pytest.approx(-float(z.detach()) / 2, rel=1e-9)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_the_gradient_of_an_expectation_has_no_bias(concentration: float) -> None:
    """E[log z] = psi(a) - log b."""
    n = 20_000
    a = torch.full((n, 1), concentration, dtype=torch.float64, requires_grad=True)
    (each,) = torch.autograd.grad(Gamma(a, torch.full_like(a, 2.0)).rsample(1).log().sum(), a)
    exact = float(special.polygamma(1, concentration))
    assert float(each.mean()) == pytest.approx(exact, abs=float(5 * each.std() / n**0.5) + 5e-4 * exact)


def test_gradients_of_density_and_kl_by_finite_differences() -> None:
    part, p = posterior(), prior(3)
    z = torch.rand(2, 4, 3, dtype=torch.float64) + 0.1

    def density_and_kl(h: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        q = part(h)
        return q.log_prob(z), p.exact_kl(q)

    assert torch.autograd.gradcheck(density_and_kl, (features().requires_grad_(), z.requires_grad_()))


def test_without_gradient_it_is_the_same_distribution() -> None:
    part = posterior()
    q, z = part(features()), torch.rand(5, 4, 3, dtype=torch.float64, requires_grad=True)
    log_q = q.stop_gradient().log_prob(z)
    assert (log_q == q.log_prob(z)).all()
    log_q.sum().backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in part.parameters())


# -- the KL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_kl_is_that_of_quadrature(concentration: float) -> None:
    q, p = stats.gamma(concentration, scale=1 / 1.5), stats.gamma(2.0, scale=1.0)
    ends = q.ppf([1e-12, 1 - 1e-12])  # over the logarithm of z: where a is small, the density has a pole at 0
    exact, _ = integrate.quad(
        lambda t: math.exp(t) * q.pdf(math.exp(t)) * (q.logpdf(math.exp(t)) - p.logpdf(math.exp(t))),
        *(math.log(max(end, 1e-60)) for end in ends),
        limit=400,
    )
    kl = prior(1).exact_kl(gamma(concentration, 1.5))
    assert kl is not None
    assert float(kl) == pytest.approx(exact, rel=1e-6)


def test_kl_by_dimension_is_that_of_torch_and_of_samples() -> None:
    n, p = 100_000, prior(3, concentration=1.3, rate=0.8)
    with torch.no_grad():
        q = posterior()(features())
        kl = p.exact_kl(q)
        assert kl is not None
        theirs = D.kl_divergence(D.Gamma(q.concentration, q.rate), D.Gamma(torch.tensor(1.3), torch.tensor(0.8)))
        torch.testing.assert_close(kl, theirs)
        z, log_q = q.rsample_with_log_prob(n)
        error = (log_q - p.log_prob(z)).std(0) / n**0.5
        assert ((sampled_kl(p, q, n) - kl.sum(-1)).abs() < 5 * 2**0.5 * error).all()
    itself = prior(1, concentration=7.0, rate=3.0).exact_kl(gamma(7.0, 3.0))
    assert itself is not None
    assert float(itself) == pytest.approx(0, abs=1e-12)
    assert p.exact_kl(DiagonalNormal(torch.zeros(1, 3), torch.zeros(1, 3))) is None


def test_density_and_kl_of_a_narrow_one_are_exact_in_float32() -> None:
    # At a = 1e6 the terms are 1e7 nats, of which float32 knows one.
    a, b = 1e6, 5e5
    q, z = gamma(a, b, torch.float32), torch.tensor([[[2.0]], [[2.002]]])
    expected = stats.gamma(a, scale=1 / b).logpdf(z.double())
    torch.testing.assert_close(q.log_prob(z).double(), torch.from_numpy(expected).squeeze(-1), rtol=1e-5, atol=1e-4)
    kl = prior(1).float().exact_kl(q)
    theirs = D.kl_divergence(D.Gamma(torch.tensor(a).double(), torch.tensor(b).double()), D.Gamma(2.0, 1.0))
    assert kl is not None
    assert float(kl) == pytest.approx(float(theirs), abs=1e-4)


def test_the_weights_of_the_true_posterior_are_the_evidence() -> None:
    """x ~ Exponential(z), z ~ Gamma(a, b): q = Gamma(a + 1, b + x), p(x) = a b^a / (b + x)^(a + 1)."""
    a, b, x = 1.3, 0.8, torch.tensor([[0.1], [2.0], [9.0]], dtype=torch.float64)
    q = Gamma(torch.full_like(x, a + 1), b + x)
    z, log_q = q.rsample_with_log_prob(20)
    log_w = D.Exponential(z).log_prob(x).sum(-1) + prior(1, concentration=a, rate=b).log_prob(z) - log_q
    exact = math.log(a) + a * math.log(b) - (a + 1) * (b + x[:, 0]).log()
    torch.testing.assert_close(log_w, exact.expand(20, 3))


# -- the posterior -----------------------------------------------------------------------------------------


def test_every_parameter_is_trained_and_rows_are_independent() -> None:
    part, h = posterior(), features(2).requires_grad_()
    z, log_q = part(h).rsample_with_log_prob(3)
    (z.sum(-1) + log_q)[:, 0].sum().backward()
    assert h.grad is not None
    assert h.grad[0].abs().sum() > 0
    assert (h.grad[1] == 0).all()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_wild_features_stay_finite(size: float) -> None:
    part, p = posterior().float(), prior(3).float()
    h = (size * features(8)).float().requires_grad_()
    q = part(h)
    z, log_q = q.rsample_with_log_prob(2)
    kl = p.exact_kl(q)
    assert kl is not None
    (kl.sum() + (log_q - p.log_prob(z)).sum()).backward()
    assert kl.isfinite().all()
    assert log_q.isfinite().all()
    assert (z > 0).all()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_full_precision_under_autocast() -> None:
    part, p = posterior().float(), prior(3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(features().float())
        z, log_q = q.rsample_with_log_prob(5)
        kl = p.exact_kl(q)
    assert kl is not None
    assert z.dtype == log_q.dtype == kl.dtype == p.log_prob(z).dtype == torch.float32


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^latent_dim must be at least 1, got 0"):
        posterior(0)
    with pytest.raises(ValueError, match=r"^concentration must be positive and finite, got 0"):
        prior(2, concentration=0.0)
    with pytest.raises(ValueError, match=r"^rate must be positive and finite, got -1"):
        prior(2, rate=-1.0)
