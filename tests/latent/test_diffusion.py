"""Diffusion priors against textbook formulas, closed forms for normal z, and a sum over all steps."""

import math
from itertools import pairwise
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.latent import Diffusion
from attelbo.latent.priors.denoisers import NoiseLevels
from attelbo.latent.priors.diffusion import schedule
from attelbo.networks import DiffusionTransformer

NAMES = sorted(contract.FAMILIES["prior"]["diffusion"])
SIZES: dict[str, dict[str, Any]] = {
    "diffusion": {"latent_shape": (2,), "dim": 8, "layers": 1},
    "diffusion_transformer": {"latent_shape": (2, 2, 3), "dim": 8, "heads": 2, "layers": 1},
}
F64 = torch.float64


def prior(name: str = "diffusion", scale: float | None = 0.15, **given: Any) -> Any:
    part = contract.build_part("prior", name, **SIZES[name] | given)
    part.center.copy_(0.5 * torch.randn(part.center.shape, dtype=F64))
    part.spread.copy_(0.5 + torch.rand(part.spread.shape, dtype=F64))
    return part if scale is None else contract.randomize(part, scale)


def draw(part: Any, *rows: int) -> Tensor:
    return torch.randn(*rows, *part.latent_shape, dtype=F64)


def test_every_prior_is_here() -> None:
    assert sorted(SIZES) == NAMES
    assert Diffusion.estimates
    assert DiffusionTransformer.estimates


# -- the process ---------------------------------------------------------------------------------------------


def test_the_steps_are_those_of_ho_et_al() -> None:
    log_snr = torch.tensor([4.0, 2.5, 0.3, -1.0, -3.0], dtype=F64)
    table = schedule(log_snr)
    torch.testing.assert_close(table.alpha**2 + table.sigma**2, torch.ones(5, dtype=F64))
    torch.testing.assert_close((table.alpha / table.sigma).log() * 2, log_snr)
    bars = [1.0, *(table.alpha**2).tolist()]  # alpha-bar_0 .. alpha-bar_T
    for t, (before, now) in enumerate(pairwise(bars)):
        alpha, beta = now / before, 1 - now / before  # of the step, their eq. 4
        of_x = before**0.5 * beta / (1 - now)  # their eq. 7
        of_noisy = alpha**0.5 * (1 - before) / (1 - now)
        assert float(table.take[t]) == pytest.approx(of_x)
        assert float(table.keep[t]) == pytest.approx(of_noisy, abs=1e-12)
        # A view of x with noise of variance w gives z_{t-1} the variance beta-tilde.
        assert float(table.take[t] ** 2 * table.view[t]) == pytest.approx((1 - before) / (1 - now) * beta, abs=1e-12)


def reverse(p: Any, noisy: Tensor, t: int, labels: Tensor | None = None) -> D.Normal:
    """p(z_{t-1}|z_t), t from 0 on."""
    condition = None if labels is None else labels @ p.classes
    mean, variance = p.denoise(noisy, torch.tensor([t]), condition)
    return D.Normal(p.keep[t] * noisy + p.take[t] * mean, p.take[t] * (p.view[t] + variance).sqrt())


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_one_step_has_no_bias_in_the_bound(name: str) -> None:
    """Against KLs of torch, each averaged over many z_t."""
    p, n = prior(name, steps=4), 5_000
    z = draw(p, 1)
    x = ((z.flatten(1) - p.center) / p.spread).expand(n, -1)
    kl = D.kl_divergence(D.Normal(p.alpha[-1] * x, p.sigma[-1]), D.Normal(0.0, 1.0)).sum(-1)
    terms = [-kl]
    for t in range(p.steps):
        noisy = p.alpha[t] * x + p.sigma[t] * torch.randn_like(x)
        p_step = reverse(p, noisy, t)
        if t == 0:
            terms.append(p_step.log_prob(x).sum(-1))
        else:
            mean = p.keep[t] * noisy + p.take[t] * x
            terms.append(-D.kl_divergence(D.Normal(mean, p.take[t] * p.view[t].sqrt()), p_step).sum(-1))
    expected = sum(term.mean() for term in terms) - p.spread.log().sum()
    noise = sum(term.var() / n for term in terms)
    estimates = torch.stack([p.bound(z.expand(5, 50, *p.latent_shape)).mean() for _ in range(20)])
    noise = (noise + estimates.var() / 20) ** 0.5
    assert float(noise) < 0.5
    assert abs(float(estimates.mean() - expected)) < 5 * float(noise)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_chain_is_that_of_the_textbook(name: str) -> None:
    """p(z_0 .. z_T) / q(z_1 .. z_T|z_0) from the transitions of both, along the chain that was drawn."""
    p = prior(name, steps=5)
    z = draw(p, 1, 3)
    x = (z.flatten(2) - p.center)[0] / p.spread
    torch.manual_seed(3)
    found = p.log_prob(z)[0]
    torch.manual_seed(3)
    noisy = p.alpha[-1] * x + p.sigma[-1] * torch.randn_like(x)
    log_ratio = D.Normal(0.0, 1.0).log_prob(noisy) - D.Normal(p.alpha[-1] * x, p.sigma[-1]).log_prob(noisy)
    for t in reversed(range(1, p.steps)):
        q_step = D.Normal(p.keep[t] * noisy + p.take[t] * x, p.take[t] * p.view[t].sqrt())
        before = q_step.mean + q_step.stddev * torch.randn_like(x)
        log_ratio += reverse(p, noisy, t).log_prob(before) - q_step.log_prob(before)
        noisy = before
    log_ratio += reverse(p, noisy, 0).log_prob(x)
    torch.testing.assert_close(found, log_ratio.sum(-1) - p.spread.log().sum(), rtol=1e-5, atol=1e-5)


# -- where the truth is known: normal z, whose best denoiser is linear -------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_starts_as_a_normal_distribution_and_a_single_chain_and_step_say_so(name: str) -> None:
    p = prior(name, scale=None)
    z = draw(p, 4, 3)
    expected = D.Normal(p.center, p.spread).log_prob(z.flatten(2)).sum(-1)
    torch.testing.assert_close(p.log_prob(z), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(p.bound(z), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def normal() -> tuple[Any, D.MultivariateNormal]:
    """x ~ N(mean, S) with correlations; the true mean of x given z_t, and its true variances but no covariances."""
    mean = torch.tensor([0.4, -0.7], dtype=F64)
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.8]], dtype=F64)
    p = prior(steps=64)
    p.center.zero_()
    p.spread.fill_(1.0)

    def denoise(noisy: Tensor, step: Tensor, _condition: Tensor | None) -> tuple[Tensor, Tensor]:
        alpha, variance = p.alpha[step].unsqueeze(-1), p.sigma[step].square().unsqueeze(-1)  # (N or 1, 1, 1)
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + variance * torch.eye(2, dtype=F64))
        error = noisy.unsqueeze(-1) - alpha * mean.unsqueeze(-1)
        posterior = covariance - alpha * gain @ covariance
        return mean + (gain @ error)[..., 0], posterior.diagonal(dim1=-2, dim2=-1)

    p.denoise = denoise
    return p, D.MultivariateNormal(mean, covariance)


@torch.no_grad()
def test_with_the_best_denoiser_bound_chain_and_samples_are_those_of_the_normal(normal: Any) -> None:
    p, truth = normal
    z = truth.sample((400,))
    chains = p.log_prob(z.expand(50, 400, 2))  # (50, 400)
    estimate = chains.logsumexp(0) - math.log(50)
    # What is left is the price of 64 steps without covariances, and that z_T is not quite N(0, I).
    assert float((estimate - truth.log_prob(z)).abs().mean()) < 0.02
    assert float(chains.mean() - truth.log_prob(z).mean()) == pytest.approx(0, abs=0.02)
    assert float(p.bound(z.expand(50, 400, 2)).mean() - chains.mean()) == pytest.approx(0, abs=0.1)
    drawn = p.sample(20_000)
    assert drawn.dtype == F64
    torch.testing.assert_close(drawn.mean(0), truth.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.T.cov(), truth.covariance_matrix, rtol=0, atol=0.03)


@torch.no_grad()
def test_with_the_best_denoiser_it_is_a_mixture_of_normals() -> None:
    """Eight Gaussians on a circle: means and variances of x given z_t in closed form."""
    angle = torch.arange(8, dtype=F64) * math.pi / 4
    centers, std, p = 1.4 * torch.stack([angle.cos(), angle.sin()], 1), 0.21, prior(steps=32)
    p.center.zero_()
    p.spread.fill_(1.0)

    def denoise(noisy: Tensor, step: Tensor, _condition: Tensor | None) -> tuple[Tensor, Tensor]:
        alpha, sigma = p.alpha[step], p.sigma[step]
        total = (alpha * std).square() + sigma.square()
        error = noisy.unsqueeze(1) - alpha.unsqueeze(1) * centers  # (N, 8, 2)
        weights = (-error.square().sum(-1) / (2 * total)).softmax(1).unsqueeze(-1)
        means = centers + (alpha * std**2 / total).unsqueeze(1) * error
        mean = (weights * means).sum(1)
        spread = (weights * (means - mean.unsqueeze(1)).square()).sum(1)
        return mean, std**2 * sigma.square() / total + spread

    p.denoise = denoise
    normals = D.Independent(D.Normal(centers, torch.full_like(centers, std)), 1)
    truth = D.MixtureSameFamily(D.Categorical(torch.ones(8, dtype=F64)), normals)
    z = truth.sample((500,))
    chains, expected = p.log_prob(z.expand(40, 500, 2)), truth.log_prob(z)
    estimate = chains.logsumexp(0) - math.log(40)
    assert float((estimate - expected).mean()) == pytest.approx(0, abs=0.02)
    assert 0 < float((expected - chains).mean()) < 0.1  # steps are not quite normal
    drawn = p.sample(5_000)
    assert float(truth.log_prob(drawn).mean()) == pytest.approx(float(expected.mean()), abs=0.15)


# -- the estimate --------------------------------------------------------------------------------------------


def by_quadrature(p: Any, z: Tensor) -> Tensor:
    """log p(z) of z (N, 1), by sums over a grid of z_t, from z_T down."""
    nodes, cell = contract.grid(1, half_width=6.0, points=1001)
    log_p = D.Normal(0.0, 1.0).log_prob(nodes[:, 0])
    for t in reversed(range(p.steps)):
        to = nodes if t else (z - p.center) / p.spread
        log_step = reverse(p, nodes, t).log_prob(to.unsqueeze(1))[..., 0]  # (to, from)
        log_p = (log_step + log_p).logsumexp(1) + math.log(cell)
    return log_p - p.spread.log().sum()


@torch.no_grad()
def test_the_estimate_has_no_bias_and_its_logarithm_is_below() -> None:
    p, n = prior(latent_shape=(1,), steps=3, scale=0.1), 10_000
    z = torch.linspace(-1.5, 1.5, 6, dtype=F64).unsqueeze(1) * p.spread + p.center
    truth, log_p = by_quadrature(p, z), p.log_prob(z.expand(n, 6, 1))
    ratio = (log_p - truth).exp()
    noise = ratio.std(0) / n**0.5
    assert (noise < 0.02).all()
    assert ((ratio.mean(0) - 1).abs() < 5 * noise).all()
    assert (log_p.mean(0) < truth).all()
    bound = p.bound(z.expand(n, 6, 1))
    noise = (bound.var(0) / n + log_p.var(0) / n).sqrt()
    assert ((bound.mean(0) - log_p.mean(0)).abs() < 5 * noise).all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_p_of_z_is_the_mixture_of_those_of_each_class(name: str) -> None:
    p, labels = prior(name, data_classes=3, class_conditional=True, steps=3), torch.eye(3, dtype=F64)
    z = draw(p, 20, 1)
    for what in ("log_prob", "bound"):
        torch.manual_seed(2)
        of_class = getattr(p.given(labels), what)(z.expand(20, 3, *p.latent_shape))  # (n, Y)
        torch.manual_seed(2)
        of_all = getattr(p, what)(z)[:, 0]
        expected = of_class.exp().mean(1).log() if what == "log_prob" else of_class.mean(1)  # by Jensen's inequality
        torch.testing.assert_close(of_all, expected)
    torch.manual_seed(2)
    other = p.given(labels.roll(1, 0)).log_prob(z.expand(20, 3, *p.latent_shape))
    torch.manual_seed(2)
    assert (other - p.given(labels).log_prob(z.expand(20, 3, *p.latent_shape))).abs().min() > 0
    assert p.sample(7).shape == (7, *p.latent_shape)
    assert p.given(labels).sample(3).shape == (3, *p.latent_shape)
    unconditional = prior(name, data_classes=3)
    assert not unconditional.knows_labels
    assert unconditional.given(labels) is unconditional


@pytest.mark.parametrize("what", ["log_prob", "bound"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_finite_differences(name: str, what: str) -> None:
    p = prior(name, steps=3)

    def density(z: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(1)
        return getattr(p, what)(z)

    z = draw(p, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(density, (z, *p.parameters()), fast_mode=True)
    density(z).sum().backward()
    for leaf in (z, *p.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast_and_far_away(name: str) -> None:
    p = prior(name).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = p.sample(4)
        for log_p in (p.log_prob(draw(p, 2, 3).float()), p.bound(draw(p, 2, 3).float())):
            assert log_p.dtype == z.dtype == torch.float32
    far = torch.full((1, 1, *p.latent_shape), 1e4, requires_grad=True)
    for log_p in (p.log_prob(far), p.bound(far)):
        log_p.sum().backward()
        assert log_p.isfinite().all()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_it_learns_what_no_normal_distribution_is() -> None:
    """Four Gaussians in the plane, whose entropy is known."""
    std, n = 0.15, 2_000
    centers = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    truth = D.MixtureSameFamily(
        D.Categorical(torch.ones(4)), D.Independent(D.Normal(centers, torch.full((4, 2), std)), 1)
    )
    z, other = truth.sample((n,)), truth.sample((500,))
    p = Diffusion((2,), steps=16, n_times=1, dim=32, layers=1)
    p.start_from(z)
    optimizer = torch.optim.Adam(p.parameters(), lr=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        (-p.bound(z[torch.randint(n, (256,))].unsqueeze(0)).mean()).backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        chains = p.log_prob(other.expand(20, 500, 2))
        found = float((chains.logsumexp(0) - math.log(20)).mean())
    best = float(truth.log_prob(other).mean())
    normal = float(D.Normal(z.mean(0), z.std(0)).log_prob(other).sum(-1).mean())
    assert normal + 0.7 * (best - normal) < found < best + 0.05


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("diffusion", {"steps": 1}, r"^steps must be at least 2, got 1"),
        ("diffusion", {"n_times": 0}, r"^n_times must be at least 1, got 0"),
        ("diffusion", {"dim": 0}, r"^dim must be at least 1, got 0"),
        ("diffusion", {"layers": 0}, r"^layers must be at least 1, got 0"),
        ("diffusion", {"class_conditional": True}, r"^class_conditional takes data with classes"),
        ("diffusion_transformer", {"heads": 3}, r"^heads must divide the 8 features"),
        ("diffusion_transformer", {"dim": 0}, r"^dim must be"),
        ("diffusion_transformer", {"layers": 0}, r"^layers must be at least 1, got 0"),
        ("diffusion_transformer", {"latent_shape": (2,)}, r"^a transformer takes maps of latents, .*prior=diffusion"),
    ],
)
def test_bad_arguments_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract.build_part("prior", name, **SIZES[name] | given)


def test_the_slowest_wave_tells_all_noise_levels_apart() -> None:
    """Half a wave from the first level to the last, equally spaced in log SNR; the fastest makes fifteen whole ones."""
    waves = NoiseLevels(torch.linspace(-4, 6, 101), 8).waves
    angles = math.pi * torch.linspace(0, 1, 101)
    for wave, times in ((0, 1), (15, 30)):
        expected = torch.stack([(times * angles).sin(), (times * angles).cos()], 1)
        torch.testing.assert_close(waves[:, [wave, wave + 16]], expected, rtol=0, atol=1e-4)
