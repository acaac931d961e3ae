"""Each registered prior against torch.distributions, quadrature and Monte Carlo."""

import math
from collections.abc import Callable
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

from attelbo.building import arguments_of, locate
from attelbo.latent import (
    ClassConditionalNormal,
    DiagonalNormal,
    FullNormal,
    LowRankNormal,
    MixtureOfGaussians,
    StandardNormal,
    VampPrior,
)


def mixture(p: Any) -> D.Distribution:
    components = D.Independent(D.Normal(p.means, p.log_stds.exp()), len(p.latent_shape))
    return D.MixtureSameFamily(D.Categorical(logits=p.logits), components)


def equal_mixture(p: Any) -> D.Distribution:
    components = D.Independent(D.Normal(p.means, p.log_stds.exp()), len(p.latent_shape))
    return D.MixtureSameFamily(D.Categorical(torch.ones(len(p.means), dtype=torch.float64)), components)


def standard_normal(p: Any) -> D.Distribution:
    zeros = torch.zeros(p.latent_shape, dtype=torch.float64)
    return D.Independent(D.Normal(zeros, torch.ones_like(zeros)), len(p.latent_shape))


def vamp(p: Any) -> D.Distribution:
    q = Linear(p.latent_shape)(p.logits.sigmoid())
    components = D.Independent(D.Normal(q.mean, q.std), len(p.latent_shape))
    return D.MixtureSameFamily(D.Categorical(torch.ones(len(q.mean), dtype=torch.float64)), components)


TABLE: dict[str, Callable[[Any], D.Distribution]] = {
    "class_conditional_normal": equal_mixture,
    "mixture_of_gaussians": mixture,
    "standard_normal": standard_normal,
    "vamp": vamp,
}
NAMES = sorted(contract.FAMILIES["prior"]["density"])


class Linear:
    """q(z|x) of x (B, 3), for priors that are made of posteriors."""

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(1)
        size = (2, 3, math.prod(latent_shape))
        self.mean, self.log_std = 2 * torch.randn(size, dtype=torch.float64, generator=generator)
        self.latent_shape = latent_shape

    def __call__(self, x: Tensor) -> DiagonalNormal:
        mean, log_std = (x @ weight for weight in (self.mean, self.log_std))
        return DiagonalNormal(*(t.unflatten(-1, self.latent_shape) for t in (mean, log_std / 4)))


def build(name: str, *latent_shape: int) -> Any:
    target = locate(contract.spec("prior", name)["_target_"])
    offered = {"data_shape": (3,), "data_classes": 3, "n_components": 4}
    given = {key: offered[key] for key in offered if key in arguments_of(target)}
    p = contract.build_part("prior", name, latent_shape=latent_shape, **given)
    p.attach(Linear(latent_shape))
    return p


def prior(name: str, *latent_shape: int) -> Any:
    return contract.randomize(build(name, *latent_shape))


def diagonal(batch: int = 3, dim: int = 2) -> tuple[DiagonalNormal, D.Distribution]:
    mean, log_std = torch.randn(2, batch, dim, dtype=torch.float64)
    return DiagonalNormal(mean, log_std), D.Independent(D.Normal(mean, log_std.exp()), 1)


def full(batch: int = 3, dim: int = 2) -> tuple[FullNormal, D.Distribution]:
    square = torch.randn(batch, dim, dim, dtype=torch.float64)
    factor = square.tril(-1) + torch.diag_embed(square.diagonal(dim1=-2, dim2=-1).exp())
    mean = torch.randn(batch, dim, dtype=torch.float64)
    return FullNormal(mean, factor), D.MultivariateNormal(mean, scale_tril=factor)


def low_rank(batch: int = 3, dim: int = 2) -> tuple[LowRankNormal, D.Distribution]:
    mean, log_std, direction = torch.randn(3, batch, dim, dtype=torch.float64)
    std, directions = log_std.exp(), direction.unsqueeze(-1)
    reference = D.LowRankMultivariateNormal(mean, std.unsqueeze(-1) * directions, std.square())
    return LowRankNormal(mean, log_std, directions), reference


POSTERIORS = {"diagonal": diagonal, "full": full, "low_rank": low_rank}


def test_every_prior_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("latent_shape", [(3,), (2, 2, 3)])
def test_log_prob_is_that_of_torch(name: str, latent_shape: tuple[int, ...]) -> None:
    p = prior(name, *latent_shape)
    z = 2 * torch.randn(5, 4, *latent_shape, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(z), TABLE[name](p).log_prob(z))


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name: str) -> None:
    nodes, cell = contract.grid(2, half_width=30.0, points=601)
    density = prior(name, 2).log_prob(nodes.unsqueeze(1)).detach().exp()
    assert float(density.sum()) * cell == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments_of_torch(name: str) -> None:
    n = 200_000
    p = prior(name, 2)
    reference = TABLE[name](p)
    z = p.sample(n)
    assert z.shape == (n, 2)
    assert z.dtype == torch.float64
    assert ((z.mean(0) - reference.mean).abs() < 5 * (reference.variance / n).sqrt()).all()
    # The mean of log p(z) sees more than moments: it is the entropy of what was sampled.
    ours, theirs = reference.log_prob(z), reference.log_prob(reference.sample((n,)))
    assert (ours.mean() - theirs.mean()).abs() < 5 * ((ours.var() + theirs.var()) / n).sqrt()
    assert ((z.var(0) - reference.variance).abs() < 5 * reference.variance * (4 / n) ** 0.5).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", POSTERIORS)
def test_kl_is_that_of_monte_carlo(name: str, kind: str) -> None:
    n = 200_000
    p = prior(name, 2)
    q, reference = POSTERIORS[kind]()
    samples = reference.sample((n,))
    log_ratio = reference.log_prob(samples) - TABLE[name](p).log_prob(samples)
    standard_error = log_ratio.std(0) / n**0.5
    with torch.no_grad():
        kl = contract.kl(p, q, n)
    # Twice the error: where no closed form exists, both sides are estimates.
    assert ((kl - log_ratio.mean(0)).abs() < 5 * 2**0.5 * standard_error).all()


@pytest.mark.parametrize("kind", POSTERIORS)
def test_kl_to_the_standard_normal_is_that_of_torch(kind: str) -> None:
    q, reference = POSTERIORS[kind](dim=4)
    p = StandardNormal((4,))
    kl = p.exact_kl(q)
    assert kl is not None
    zeros = torch.zeros(4, dtype=torch.float64)
    if kind == "diagonal":
        assert kl.shape == (3, 4)
        theirs = D.kl_divergence(reference, D.Independent(D.Normal(zeros, torch.ones_like(zeros)), 1))
        by_dimension = D.kl_divergence(D.Normal(q.mean, q.std), D.Normal(0.0, 1.0))
        torch.testing.assert_close(kl, by_dimension)
    else:
        assert kl.shape == (3, 1)
        theirs = D.kl_divergence(reference, D.MultivariateNormal(zeros, torch.eye(4, dtype=torch.float64)))
    torch.testing.assert_close(kl.sum(-1), theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", POSTERIORS)
def test_kl_of_the_prior_with_itself_is_zero(name: str, kind: str) -> None:
    p = build(name, 2)
    if isinstance(p, MixtureOfGaussians | ClassConditionalNormal):
        nn.init.zeros_(p.means)
    p.attach(lambda u: DiagonalNormal(torch.zeros(len(u), 2, dtype=u.dtype), torch.zeros(len(u), 2, dtype=u.dtype)))
    zeros, eye = torch.zeros(3, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    q = {
        "diagonal": DiagonalNormal(zeros, zeros),
        "full": FullNormal(zeros, eye),
        "low_rank": LowRankNormal(zeros, zeros, 0 * eye),
    }[kind]
    torch.testing.assert_close(contract.kl(p, q, 4), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_density_and_kl(name: str) -> None:
    p = prior(name, 2)
    parameters = tuple(p.parameters())

    def density_and_kl(z: Tensor, mean: Tensor, log_std: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return p.log_prob(z), contract.kl(p, DiagonalNormal(mean, log_std), 2)

    mean, log_std = torch.randn(2, 3, 2, dtype=torch.float64)
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    inputs = (z.requires_grad_(), mean.requires_grad_(), log_std.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(density_and_kl, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    p = build(name, 2)
    z = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    p.log_prob(z).sum().backward()
    for leaf in (z, *p.parameters()):
        assert leaf.grad is not None
        assert (leaf.grad != 0).all()


def test_a_far_point_keeps_a_finite_density_under_the_mixture() -> None:
    p = MixtureOfGaussians((2,), n_components=3)
    z = torch.full((1, 1, 2), 1e4, requires_grad=True)
    log_p = p.log_prob(z)
    log_p.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert float(log_p.detach()) == pytest.approx(-1e8, rel=0.01)


def test_a_mixture_starts_at_samples_and_fills_their_volume() -> None:
    p = MixtureOfGaussians((2, 3), n_components=5).double()
    z = 2 + torch.arange(1, 7).view(2, 3) * torch.randn(400, 2, 3, dtype=torch.float64)
    p.start_from(z)
    assert (p.means.unsqueeze(1) == z).all(-1).all(-1).any(1).all()
    shares = (p.log_stds.exp() / z.std(0, correction=0)).flatten(1)
    torch.testing.assert_close(shares, shares[:1, :1].expand(5, 6))
    torch.testing.assert_close(5 * shares.prod(1), torch.ones(5, dtype=torch.float64))
    z[:, 1, 2] = 1.0
    p.start_from(z)
    torch.testing.assert_close(p.log_stds[:, 1, 2].exp(), torch.full((5,), 1e-3, dtype=torch.float64))


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^n_components must be at least 1, got 0"):
        MixtureOfGaussians((2,), n_components=0)
    with pytest.raises(ValueError, match=r"^n_components must be at least 1, got 0"):
        VampPrior((2,), (3,), n_components=0)


def test_vamp_of_the_data_is_their_aggregated_posterior() -> None:
    # Where the pseudo-inputs are the data, E_x KL(q(z|x) || p(z)) is the mutual information, at most log M.
    x = torch.cat([torch.full((1, 3), 0.5), torch.eye(3), 1 - torch.eye(3)])[:5].double().clamp(0.1, 0.9)
    p = VampPrior((2,), (3,), n_components=5).double()
    with torch.no_grad():
        p.logits.copy_(x.logit())
    narrow = lambda u: DiagonalNormal(50 * Linear((2,))(u).mean, torch.full((len(u), 2), -4.0, dtype=u.dtype))  # noqa: E731
    for posterior_of, expected in ((narrow, math.log(5)), (Linear((2,)), None)):
        p.attach(posterior_of)
        q = posterior_of(x)
        z = q.rsample(2000)
        by_hand = torch.stack(
            [D.Normal(mean, std).log_prob(z).sum(-1) for mean, std in zip(q.mean, q.std, strict=True)]
        )
        torch.testing.assert_close(p.log_prob(z), by_hand.logsumexp(0) - math.log(5))
        information = float((q.log_prob(z) - p.log_prob(z)).detach().mean())
        if expected is None:
            assert 0.1 < information < math.log(5) - 0.1
        else:
            assert information == pytest.approx(expected, rel=1e-6)


def test_vamp_keeps_its_digits_far_from_the_origin() -> None:
    # In float32, components 1e-2 wide at 1e3: expanded squares would have lost every digit of the distance.
    centre, width = 1e3, 1e-2
    p = VampPrior((4,), (3,), n_components=2)
    p.attach(lambda u: DiagonalNormal(torch.full((len(u), 4), centre), torch.full((len(u), 4), math.log(width))))
    z = centre + width * torch.randn(1, 50, 4)
    expected = D.Normal(torch.full((), centre, dtype=torch.float64), width).log_prob(z.double()).sum(-1)
    torch.testing.assert_close(p.log_prob(z).double(), expected, rtol=1e-3, atol=1e-3)


def test_a_normal_for_each_class_given_labels() -> None:
    p = contract.randomize(ClassConditionalNormal((2, 2), data_classes=3).double())
    y = torch.tensor([2, 0, 2, 1])
    given = p.given(torch.eye(3)[y])
    q = DiagonalNormal(*torch.randn(2, 4, 2, 2, dtype=torch.float64))
    reference = D.Normal(p.means[y], p.log_stds[y].exp())
    z = torch.randn(5, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(given.log_prob(z), reference.log_prob(z).sum((2, 3)))
    torch.testing.assert_close(
        given.exact_kl(q), D.kl_divergence(D.Normal(q.mean, q.std), reference).flatten(1), check_stride=False
    )
    assert given.exact_kl(FullNormal(torch.zeros(4, 4), torch.eye(4).expand(4, 4, 4))) is None
    with torch.no_grad():
        draws = torch.stack([given.sample(4) for _ in range(5000)])
    assert ((draws.mean(0) - reference.mean).abs() < 5 * reference.stddev / 5000**0.5).all()
    assert ((draws.std(0) / reference.stddev - 1).abs() < 0.06).all()


def test_a_normal_for_each_class_of_data_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a prior for each class takes data with classes, and these have none"):
        ClassConditionalNormal((2,), data_classes=None)
