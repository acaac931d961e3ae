"""Each registered likelihood against torch.distributions, scipy, exact arithmetic and enumeration."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, Literal

import latent_contract as contract
import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor
from torch import distributions as D

from attelbo.latent import (
    Bernoulli,
    BetaBinomial,
    CategoricalLevels,
    ContinuousBernoulli,
    DiscretizedLogistic,
    HeteroscedasticNormal,
    HyperbolicSecant,
    Laplace,
    LogisticMixture,
    Normal,
)

SHAPE = (2, 3, 3)
LEVELS = torch.arange(256, dtype=torch.float64) / 255


def bernoulli(part: Bernoulli, eta: Tensor, x: Tensor) -> Tensor:
    return D.Bernoulli(logits=eta).log_prob(x.expand_as(eta))


def normal(part: Normal, eta: Tensor, x: Tensor) -> Tensor:
    return D.Normal(eta, 1.0).log_prob(x)  # std is 1 until a training batch has been seen


def laplace(part: Laplace, eta: Tensor, x: Tensor) -> Tensor:
    return D.Laplace(eta, 1.0).log_prob(x)  # b is 1 until a training batch has been seen


class Hypsecant:
    """scipy's, with the arguments and the words of torch."""

    def __init__(self, mean: Tensor | float, std: Tensor | float) -> None:
        self.of_scipy = stats.hypsecant(torch.as_tensor(mean).detach(), 2 / math.pi * float(std))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.of_scipy.logpdf(x))

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(self.of_scipy.rvs(shape, random_state=0))


def hyperbolic_secant(part: HyperbolicSecant, eta: Tensor, x: Tensor) -> Tensor:
    return Hypsecant(eta, 1.0).log_prob(x)  # std is 1 until a training batch has been seen


def heteroscedastic_normal(part: HeteroscedasticNormal, eta: Tensor, x: Tensor) -> Tensor:
    mean, scale = eta.tensor_split(2, dim=1 - len(part.data_shape) - 1)
    return D.Normal(mean, 0.1 + 0.9 * torch.log1p(scale.exp())).log_prob(x)


def continuous_bernoulli(part: ContinuousBernoulli, eta: Tensor, x: Tensor) -> Tensor:
    return D.ContinuousBernoulli(logits=eta).log_prob(x)


def discretized_logistic(part: DiscretizedLogistic, eta: Tensor, x: Tensor) -> Tensor:
    mean, log_scale = eta.detach().tensor_split(2, dim=-3)
    return bins(mean, log_scale, x).log()


def bins(mean: Tensor, log_scale: Tensor, x: Tensor) -> Tensor:
    """The probability of the bin of x, by scipy."""
    level = (255 * x.expand_as(mean)).round()
    # On the scale of levels, where the bin of level k is k - 1/2 .. k + 1/2.
    logistic = stats.logistic(loc=127.5 * (mean + 1), scale=127.5 * log_scale.exp())
    upper = torch.from_numpy(logistic.cdf(level + 0.5)).masked_fill(level == 255, 1.0)
    lower = torch.from_numpy(logistic.cdf(level - 0.5)).masked_fill(level == 0, 0.0)
    return upper - lower


def logistic_mixture(part: LogisticMixture, eta: Tensor, x: Tensor) -> Tensor:
    parts = eta.detach().tensor_split(15, dim=-3)  # 5 weights, 5 means, 5 log scales
    weights = torch.stack(parts[:5]).softmax(0)
    components = zip(weights, parts[5:10], parts[10:], (-0.8, -0.4, 0.0, 0.4, 0.8), strict=True)
    return (
        torch.stack([weight * bins(mean + start, scale, x) for weight, mean, scale, start in components]).sum(0).log()
    )


def beta_binomial(part: BetaBinomial, eta: Tensor, x: Tensor) -> Tensor:
    a, b = eta.detach().exp().tensor_split(2, dim=-3)
    return torch.from_numpy(stats.betabinom(255, a, b).logpmf((255 * x.expand_as(a)).round()))


def categorical(part: CategoricalLevels, eta: Tensor, x: Tensor) -> Tensor:
    logits = torch.stack(eta.tensor_split(256, dim=-3), -1)
    return D.Categorical(logits=logits).log_prob((255 * x).round().expand(logits.shape[:-1]))


@dataclass(frozen=True)
class Entry:
    log_prob: Callable[[Any, Tensor, Tensor], Tensor]
    """Of each dimension: (part, eta, x) -> (n, B, C, H, W)."""
    values: Tensor | None
    """All values that one dimension can take; None for a density."""
    supports: set[str]
    mean_tolerance: float = 0.0
    """How far ``mean`` may be from the mean of the samples, beyond the error of sampling."""
    within_one: bool = False
    """Whether a density is one on [0, 1], not on all real numbers."""
    quadrature: float = 1e-12
    """The relative error of integrating the density by ``nodes``."""


TABLE = {
    "bernoulli": Entry(bernoulli, torch.tensor([0.0, 1.0], dtype=torch.float64), {"binary"}),
    "beta_binomial": Entry(beta_binomial, LEVELS, {"binary", "levels"}),
    "categorical": Entry(categorical, LEVELS, {"binary", "levels"}),
    "continuous_bernoulli": Entry(continuous_bernoulli, None, {"levels"}, within_one=True),
    "discretized_logistic": Entry(discretized_logistic, LEVELS, {"binary", "levels"}, 1 / 510),
    "heteroscedastic_normal": Entry(
        heteroscedastic_normal,
        None,
        {"binary", "levels", "real"},
        quadrature=1e-3,  # of a std of 5 the grid has 4
    ),
    "hyperbolic_secant": Entry(hyperbolic_secant, None, {"binary", "levels", "real"}, quadrature=1e-9),  # of tails
    "laplace": Entry(laplace, None, {"binary", "levels", "real"}, quadrature=1e-4),  # it has a kink
    "logistic_mixture": Entry(logistic_mixture, LEVELS, {"binary", "levels"}, 1 / 510),
    "normal": Entry(normal, None, {"binary", "levels", "real"}),
}
NAMES = sorted(contract.FAMILIES["likelihood"]["pixelwise"])


def likelihood(name: str, *shape: int) -> Any:
    return contract.build_part("likelihood", name, data_shape=shape or SHAPE).eval()


def draw(part: Any, name: str, n: int = 2, batch: int = 3) -> tuple[Tensor, Tensor]:
    """eta (n, B, P * C, ...) and x (B, C, ...)."""
    eta = 0.7 * torch.randn(n, batch, *part.parameter_shape, dtype=torch.float64)
    values = TABLE[name].values
    if values is None:
        x = torch.randn(batch, *part.data_shape, dtype=torch.float64)
        return eta, x.sigmoid() if TABLE[name].within_one else x
    return eta, values[torch.randint(len(values), (batch, *part.data_shape))]


def nodes(entry: Entry) -> tuple[Tensor, Tensor]:
    """Values (N, 1) of a dimension and their weights (N, 1), over which p adds up to one."""
    if entry.values is not None:
        return entry.values.unsqueeze(-1), torch.ones(1, dtype=torch.float64)
    if entry.within_one:
        values, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(64))
        return (values.unsqueeze(-1) + 1) / 2, weights / 2
    values, cell = contract.grid(1, half_width=20.0, points=2001)
    return values, torch.tensor(cell, dtype=torch.float64)


def test_every_likelihood_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_declares_what_it_is(name: str) -> None:
    part, entry = likelihood(name), TABLE[name]
    assert part.supports == entry.supports
    assert part.discrete == (entry.values is not None)
    eta, x = draw(part, name)
    assert part.log_prob(eta, x).shape == (2, 3)
    assert part.mean(eta).shape == part.sample(eta).shape == (2, 3, *SHAPE)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_the_sum_over_dimensions(name: str) -> None:
    # A sum, in nats: a mean over pixels would be a hidden weight on the KL.
    part = likelihood(name)
    eta, x = draw(part, name)
    torch.testing.assert_close(part.log_prob(eta, x), TABLE[name].log_prob(part, eta, x).sum((2, 3, 4)))


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one(name: str) -> None:
    part = likelihood(name, 1)
    eta = 2 * torch.randn(50, 1, *part.parameter_shape, dtype=torch.float64)
    values, weights = nodes(TABLE[name])
    total = (part.log_prob(eta.expand(-1, len(values), -1), values).exp() * weights).sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=TABLE[name].quadrature, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_levels(name: str) -> None:
    part, entry = likelihood(name), TABLE[name]
    eta, x = draw(part, name)
    if entry.values is None:
        with pytest.raises(NotImplementedError, match="has no levels"):
            part.log_table(eta)
        return
    table = part.log_table(eta)  # (n, B, C, H, W, L)
    assert table.shape == (2, 3, *SHAPE, part.n_levels)
    assert part.n_levels == len(entry.values)
    level = (x * (part.n_levels - 1)).round().long().expand(table.shape[:-1])
    torch.testing.assert_close(table.gather(-1, level.unsqueeze(-1)).squeeze(-1), entry.log_prob(part, eta, x))
    total = table.logsumexp(-1)
    torch.testing.assert_close(total, torch.zeros_like(total))
    wild = part.float().log_table(1e4 * eta.float())
    assert not wild.isnan().any()
    torch.testing.assert_close(wild.exp().sum(-1), torch.ones_like(total).float())


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean(name: str) -> None:
    n = 50_000
    part = likelihood(name, 1, 2, 2)
    eta = torch.randn(part.parameter_shape, dtype=torch.float64)
    x = part.sample(eta.expand(n, *eta.shape))
    error = (x.mean(0) - part.mean(eta)).abs()
    assert (error < 5 * x.std(0) / n**0.5 + TABLE[name].mean_tolerance).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_probabilities(name: str) -> None:
    # The mean of log p over samples is minus the entropy; by enumeration or quadrature, another way.
    n, part = 50_000, likelihood(name, 1)
    eta = torch.randn(1, 1, *part.parameter_shape, dtype=torch.float64)
    log_p = part.log_prob(eta.expand(-1, n, -1), part.sample(eta[0].expand(n, -1)))
    values, weights = nodes(TABLE[name])
    log_p_all = part.log_prob(eta.expand(-1, len(values), -1), values)
    expected = (log_p_all.exp() * log_p_all * weights).sum()
    assert (log_p.mean() - expected).abs() < 5 * log_p.std() / n**0.5 + 10 * TABLE[name].quadrature


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    part = likelihood(name, 1, 2, 2)
    eta, x = draw(part, name)
    fast = eta.numel() > 1000  # one random direction instead of all
    assert torch.autograd.gradcheck(lambda eta: part.log_prob(eta, x), eta.requires_grad_(), fast_mode=fast)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_wild_parameters_stay_finite(name: str, size: float) -> None:
    part = likelihood(name).float()
    eta, x = (t.float() for t in draw(part, name))
    eta = (size * eta).requires_grad_()
    log_p = part.log_prob(eta, x)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert eta.grad is not None
    assert eta.grad.isfinite().all()
    assert part.sample(eta).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    part = likelihood(name).float()
    eta, x = (t.float() for t in draw(part, name))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, mean, sample = part.log_prob(eta.bfloat16(), x), part.mean(eta.bfloat16()), part.sample(eta.bfloat16())
    assert low.dtype == mean.dtype == sample.dtype == torch.float32
    torch.testing.assert_close(low, part.log_prob(eta.bfloat16().float(), x))


@pytest.mark.parametrize("name", NAMES)
def test_memory_format_changes_nothing(name: str) -> None:
    part = likelihood(name)
    eta, x = draw(part, name)
    last = eta.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 3))
    torch.testing.assert_close(part.log_prob(last, x), part.log_prob(eta, x))


def test_bernoulli_of_grey_levels_is_no_likelihood() -> None:
    part = Bernoulli((1,), allow_levels=True)
    assert part.supports == {"binary", "levels"}
    total = part.log_prob(torch.ones(1, 256, 1, dtype=torch.float64), LEVELS.unsqueeze(-1)).exp().sum()
    assert float(total) > 2
    assert not Bernoulli((1,), allow_levels=True, data_kind="levels").normalized
    assert Bernoulli((1,), allow_levels=True, data_kind="binary").normalized


def test_bernoulli_around_base_rates() -> None:
    part = Bernoulli((1, 2, 2), base_rates=True).double()
    rates = torch.tensor([[[0.0, 0.2], [0.7, 1.0]]], dtype=torch.float64)
    part.learn_mean(rates)
    expected = torch.tensor([[[0.001, 0.2], [0.7, 0.999]]], dtype=torch.float64)
    torch.testing.assert_close(part.mean(torch.zeros(3, 1, 2, 2, dtype=torch.float64)), expected.expand(3, 1, 2, 2))
    eta, x = draw(part, "bernoulli")
    shifted = eta + expected.logit()
    torch.testing.assert_close(part.log_prob(eta, x), bernoulli(part, shifted, x).sum((2, 3, 4)))
    torch.testing.assert_close(part.log_table(eta), Bernoulli((1, 2, 2)).log_table(shifted))
    torch.testing.assert_close(
        part.sample(eta.expand(5000, -1, -1, -1, -1, -1)).mean(0), shifted.sigmoid(), atol=0.05, rtol=0
    )
    part.learn_mean(1 - rates)  # a second training, such as one that goes on, finds what the decoder has learned from
    torch.testing.assert_close(part.base_logits, expected.logit())


def test_bernoulli_at_extreme_logits() -> None:
    # Probabilities of exactly 0 and 1 in float32: the logarithm of a sigmoid would be -inf or lose the rest.
    eta = torch.tensor([[[200.0], [-200.0], [200.0], [-200.0], [12.0]]])
    x = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]])
    expected = torch.tensor([[0.0, 0.0, -200.0, -200.0, -math.log1p(math.exp(-12))]])
    torch.testing.assert_close(Bernoulli((1,)).log_prob(eta, x), expected, rtol=1e-6, atol=1e-6)


def best_secant(deviation: Tensor) -> Tensor:
    """The std of the largest likelihood, by scipy's search."""
    found = optimize.minimize_scalar(
        lambda log_std: -float(Hypsecant(0.0, math.exp(log_std)).log_prob(deviation).sum()),
        bounds=(-8, 4),
        options={"xatol": 1e-10},
    )
    return torch.tensor(math.exp(found.x))


SCALED: dict[str, tuple[Any, Any, Callable[[Tensor], Tensor]]] = {
    "normal": (Normal, D.Normal, lambda deviation: deviation.square().mean().sqrt()),
    "laplace": (Laplace, D.Laplace, lambda deviation: deviation.abs().mean()),
    "hyperbolic_secant": (HyperbolicSecant, Hypsecant, best_secant),
}
"""Likelihoods with one scale for all dimensions: ours, another's, and the best scale of deviations."""
by_scale = pytest.mark.parametrize(("ours", "theirs", "best"), SCALED.values(), ids=SCALED)


@by_scale
@pytest.mark.parametrize("found", ["fixed", "learned"])
def test_a_given_scale(ours: Any, theirs: Any, best: Any, found: Literal["fixed", "learned"]) -> None:
    part = ours(SHAPE, found, 0.2).double()
    eta, x = draw(part, "normal")
    log_p = part.log_prob(eta, x)
    torch.testing.assert_close(log_p, theirs(eta, 0.2).log_prob(x).sum((2, 3, 4)))
    assert log_p.requires_grad == (found == "learned")
    # The optimizer is given what is trained, and nothing else.
    assert [name for name, _ in part.named_parameters()] == ["log_scale"] * (found == "learned")
    noise = part.sample(torch.zeros(2000, *SHAPE, dtype=torch.float64)).detach()
    assert float(noise.abs().mean()) == pytest.approx(float(theirs(0.0, 0.2).sample((100_000,)).abs().mean()), rel=0.03)


@by_scale
def test_a_learned_scale_has_the_right_gradient(ours: Any, theirs: Any, best: Any) -> None:
    part = ours(SHAPE, "learned", 0.5).double()
    eta, x = draw(part, "normal")
    assert torch.autograd.gradcheck(lambda log_scale: part.log_prob(eta, x), part.log_scale)


@by_scale
def test_the_optimal_scale_is_the_best_for_the_batch(ours: Any, theirs: Any, best: Any) -> None:
    part = ours(SHAPE).double().train()
    eta, x = draw(part, "normal")
    optimal = float(part.log_prob(eta, x).sum())
    scale = float(best(eta - x))
    others = [float(theirs(eta, factor * scale).log_prob(x).sum()) for factor in (0.8, 0.95, 0.999, 1.001, 1.05, 1.2)]
    assert optimal == pytest.approx(float(theirs(eta, scale).log_prob(x).sum()))
    assert optimal > max(others)


@by_scale
def test_the_optimal_scale_has_the_gradient_of_the_largest_likelihood(ours: Any, theirs: Any, best: Any) -> None:
    # The scale moves with eta, and its own derivative counts for nothing at the maximum.
    part = ours(SHAPE).double().train()
    eta, x = draw(part, "normal")
    direction = torch.randn_like(eta)

    def largest(step: float) -> float:
        moved = eta + step * direction
        return float(theirs(moved, best(moved - x)).log_prob(x).sum())

    (own,) = torch.autograd.grad(part.log_prob(eta.requires_grad_(), x).sum(), eta)
    eta = eta.detach()
    assert float((own * direction).sum()) == pytest.approx((largest(1e-4) - largest(-1e-4)) / 2e-4, rel=1e-5)


@by_scale
def test_the_optimal_scale_is_a_constant_of_training_in_evaluation(ours: Any, theirs: Any, best: Any) -> None:
    part = ours(SHAPE).double()
    batches = [draw(part, "normal") for _ in range(3)]
    for eta, x in batches:
        part.train().log_prob(eta, x)
    power = part.power
    scale = torch.stack([best(eta - x) ** power for eta, x in batches]).mean() ** (1 / power)
    eta, x = draw(part, "normal", batch=8)
    log_p = part.eval().log_prob(5 * eta, x)
    torch.testing.assert_close(log_p, theirs(5 * eta, scale).log_prob(x).sum((2, 3, 4)))
    # No x is scored with a scale that saw it: alone or among others, it gets the same number.
    torch.testing.assert_close(log_p[:, :1], part.log_prob(5 * eta[:, :1], x[:1]))
    noise = part.sample(torch.zeros(500, *SHAPE, dtype=torch.float64))
    assert float(best(noise)) == pytest.approx(float(scale), rel=0.1)


@by_scale
@pytest.mark.parametrize("found", ["fixed", "learned", "optimal"])
def test_a_steady_likelihood_is_that_of_evaluation_and_learns_nothing(
    ours: Any, theirs: Any, best: Any, found: Any
) -> None:
    part = ours(SHAPE, found, 0.5).double().train()
    part.log_prob(*draw(part, "normal"))
    state = {name: value.clone() for name, value in part.state_dict().items()}
    eta, x = draw(part, "normal", batch=8)
    steady = part.steady_log_prob(3 * eta, x)
    assert all(torch.equal(value, state[name]) for name, value in part.state_dict().items())
    torch.testing.assert_close(steady, part.eval().log_prob(3 * eta, x))


@by_scale
def test_the_running_scale_travels_with_the_weights(ours: Any, theirs: Any, best: Any) -> None:
    part = ours(SHAPE).double().train()
    part.log_prob(*draw(part, "normal"))
    copy = ours(SHAPE).double()
    copy.load_state_dict(part.state_dict())
    eta, x = draw(part, "normal")
    assert (copy.eval().log_prob(eta, x) == part.eval().log_prob(eta, x)).all()


def test_normal_running_scale_forgets() -> None:
    part = Normal((1,)).double().train()
    x = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(100):
        part.log_prob(torch.full((1, 1, 1), 3.0, dtype=torch.float64), x)
    for _ in range(1000):
        part.log_prob(torch.full((1, 1, 1), 0.5, dtype=torch.float64), x)
    expected = 0.25 + 8.75 * 0.99**1000
    assert float(part.state_dict()["_running_error"]) == pytest.approx(expected, rel=1e-9)


@by_scale
def test_a_running_scale_may_begin_at_a_whole_number(ours: Any, theirs: Any, best: Any) -> None:
    """``model.likelihood.scale=2`` on the command line is an int, and the average was kept in integers."""
    part, same = ours(SHAPE, scale=2).train(), ours(SHAPE, scale=2.0).train()
    eta, x = draw(part, "normal")
    assert (part.log_prob(eta, x) == same.log_prob(eta, x)).all()
    assert (part.eval().log_prob(eta, x) == same.eval().log_prob(eta, x)).all()


@by_scale
def test_a_perfect_reconstruction_stays_finite(ours: Any, theirs: Any, best: Any) -> None:
    part = ours(SHAPE).train()
    x = torch.rand(3, *SHAPE)
    eta = x.expand(1, *x.shape).clone().requires_grad_()
    log_p = part.log_prob(eta, x)
    log_p.sum().backward()
    expected = theirs(x, math.exp(-6)).log_prob(x).sum((1, 2, 3)).unsqueeze(0)
    torch.testing.assert_close(log_p, expected.to(log_p.dtype))
    assert eta.grad is not None
    assert (eta.grad == 0).all()


@pytest.mark.parametrize("ours", [Normal, Laplace, HyperbolicSecant])
@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(ours: Any, scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale must be positive and finite"):
        ours(SHAPE, "fixed", scale)


@pytest.mark.parametrize("ours", [Normal, Laplace, HyperbolicSecant])
def test_an_unknown_calibration_is_refused(ours: Any) -> None:
    with pytest.raises(ValueError, match=r"^calibration must be fixed or learned or optimal, got 'best'"):
        ours(SHAPE, "best")


@pytest.mark.parametrize("shape", ["equal", "one", "light", "heavy"])
def test_the_best_secant_of_any_errors(shape: str) -> None:
    """Three steps of Newton's method find it: as low a slope of the likelihood as rounding leaves."""
    errors = {
        "equal": torch.ones(40),
        "one": torch.eye(40)[0],
        "light": torch.rand(40),
        "heavy": torch.randn(40).mul(4).exp(),
    }[shape].double()
    part = HyperbolicSecant((40,)).double().train()
    part.log_prob(errors.view(1, 1, 40), torch.zeros(1, 40, dtype=torch.float64))
    y = math.pi / 2 * errors / float(part.state_dict()["_running_error"])
    assert float((y * y.tanh()).mean()) == pytest.approx(1, abs=1e-9)


def test_continuous_bernoulli_near_one_half() -> None:
    # Where the logit is small the closed forms are 0/0: value, gradient and mean in float32 against float64, by series.
    eta = torch.cat([torch.zeros(1), torch.logspace(-30, 1, 200)])
    eta = torch.cat([-eta, eta]).view(-1, 1, 1).requires_grad_()
    x, part = torch.full((1, 1), 0.3), ContinuousBernoulli((1,))
    log_p, mean = part.log_prob(eta, x), part.mean(eta)
    (gradient,) = torch.autograd.grad(log_p.sum(), eta)
    a = eta.detach().double() / 2
    exact = torch.where(a.abs() < 1e-3, a / 3 - a**3 / 45, 1 / a.tanh() - 1 / a)  # of the mean, doubled and centred
    torch.testing.assert_close(mean.double(), 0.5 + 0.5 * exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), 0.3 - 0.5 - 0.5 * exact, rtol=1e-5, atol=1e-6)
    expected = D.ContinuousBernoulli(logits=2 * a).log_prob(x.double()).sum(2)
    torch.testing.assert_close(log_p.double(), expected, rtol=1e-6, atol=1e-6)
    a = torch.tensor([0.2499], dtype=torch.float64)  # the last place of the series, in float64
    torch.testing.assert_close(part.mean(2 * a), 0.5 + 0.5 * (1 / a.tanh() - 1 / a), rtol=0, atol=1e-11)


def test_continuous_bernoulli_is_the_cross_entropy_and_a_normalizer() -> None:
    # The second term is what the first lacks to be a likelihood of grey levels.
    eta, x = torch.randn(2, 3, *SHAPE, dtype=torch.float64), torch.rand(3, *SHAPE, dtype=torch.float64)
    cross_entropy = Bernoulli(SHAPE, allow_levels=True).log_prob(eta, x)
    normalizer = D.ContinuousBernoulli(logits=eta)._cont_bern_log_norm().sum((2, 3, 4))
    torch.testing.assert_close(ContinuousBernoulli(SHAPE).log_prob(eta, x), cross_entropy + normalizer)


@pytest.mark.parametrize("log_concentration", [-9.0, -2.0, 3.0, 8.0])
def test_beta_binomial_is_exact_in_float32(log_concentration: float) -> None:
    # Its terms are in the thousands, their sum a few nats.
    eta = torch.tensor([log_concentration, log_concentration - 1]).expand(1, 256, 2)
    log_p = BetaBinomial((1,)).log_prob(eta, LEVELS.float().unsqueeze(-1))[0]
    a, b = eta[0, 0].double().exp().tolist()
    with localcontext() as context:
        context.prec = 60
        a, b = Decimal(a), Decimal(b)
        p = math.prod(((b + i) / (a + b + i) for i in range(255)), start=Decimal(1))  # of level 0
        exact = []
        for k in range(256):
            exact.append(float(p.ln()))
            p *= (255 - k) * (a + k) / ((k + 1) * (b + 254 - k)) if k < 255 else 1
    torch.testing.assert_close(log_p, torch.tensor(exact), rtol=1e-6, atol=1e-6)


def test_a_mixture_of_one_is_the_discretized_logistic() -> None:
    part, one = LogisticMixture(SHAPE, n_components=1).double(), DiscretizedLogistic(SHAPE).double()
    eta, x = draw(part, "logistic_mixture")
    torch.testing.assert_close(part.log_prob(eta, x), one.log_prob(eta[:, :, SHAPE[0] :], x))
    torch.testing.assert_close(part.mean(eta), one.mean(eta[:, :, SHAPE[0] :]))


def test_components_of_a_mixture_are_told_apart_from_the_start() -> None:
    eta = torch.zeros(1, 1, 9, dtype=torch.float64, requires_grad=True)
    LogisticMixture((1,), n_components=3).double().log_prob(eta, torch.full((1, 1), 51 / 255)).sum().backward()
    assert eta.grad is not None
    assert len(eta.grad.flatten().unique()) == 9


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^n_components must be at least 1, got 0"):
        LogisticMixture(SHAPE, n_components=0)


def exact_log_probability(mean: float, log_scale: float, level: int) -> float:
    """log P(level) with 400 digits, where subtracting two sigmoids costs nothing."""
    with localcontext() as context:
        context.prec = 400
        scale = Decimal(log_scale).exp()

        def cdf(edge: Decimal) -> Decimal:
            return 1 / (1 + (-(2 * edge / 255 - 1 - Decimal(mean)) / scale).exp())

        upper = cdf(Decimal(level) + Decimal("0.5")) if level < 255 else Decimal(1)
        lower = cdf(Decimal(level) - Decimal("0.5")) if level > 0 else Decimal(0)
        return float((upper - lower).ln())


@pytest.mark.parametrize("level", [0, 1, 17, 128, 254, 255])
def test_discretized_logistic_is_exact_far_into_the_tails(level: int) -> None:
    # Here the two sigmoids are equal in float64, and their difference is zero.
    part = DiscretizedLogistic((1,))
    for mean, log_scale in itertools.product([-0.75, 0.0, 0.875], [-5.5, -3.0, 0.0, 5.0]):
        eta = torch.tensor([[[mean, log_scale]]])
        log_p = part.log_prob(eta, torch.tensor([[level / 255]]))
        assert float(log_p) == pytest.approx(exact_log_probability(mean, log_scale, level), rel=1e-5, abs=1e-6)


def test_discretized_logistic_samples_fall_into_the_right_bins() -> None:
    # A scale of one level: rounding down instead of to the nearest would show.
    n, part = 100_000, DiscretizedLogistic((1,)).double()
    eta = torch.tensor([0.1, math.log(2 / 255)], dtype=torch.float64).expand(1, n, 2)
    counts = torch.bincount((255 * part.sample(eta)).round().long().flatten(), minlength=256)
    expected = n * part.log_prob(eta[:, :256], LEVELS.unsqueeze(-1))[0].exp()
    assert ((counts - expected).abs() <= 5 * expected.sqrt() + 1).all()


def test_discretized_logistic_mean_is_within_half_a_level() -> None:
    part = DiscretizedLogistic((1,)).double()
    eta = torch.cartesian_prod(
        torch.linspace(-1.5, 1.5, 31, dtype=torch.float64), torch.linspace(-8, 8, 17, dtype=torch.float64)
    ).unsqueeze(0)
    probabilities = part.log_prob(eta.expand(256, -1, -1).reshape(1, -1, 2), LEVELS.repeat_interleave(527)[:, None])
    exact = probabilities.exp().reshape(256, 527).T @ LEVELS
    assert (part.mean(eta)[0, :, 0] - exact).abs().max() <= 0.5 / 255 + 1e-12


def test_discretized_logistic_mean_of_wild_parameters_is_the_nearer_end_of_the_range() -> None:
    part = DiscretizedLogistic((1,))
    far = torch.tensor([-1e8, -1e6, -1e4, 1e4, 1e6, 1e8])
    eta = torch.stack([far, torch.zeros_like(far)], -1).unsqueeze(0)
    torch.testing.assert_close(part.mean(eta)[0, :, 0], torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), atol=0, rtol=0)
