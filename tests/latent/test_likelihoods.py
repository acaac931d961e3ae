"""Each registered likelihood against torch.distributions, scipy, exact arithmetic and enumeration."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, Literal

import latent_contract as contract
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as D

from attelbo.latent import Bernoulli, DiscretizedLogistic, Normal

SHAPE = (2, 3, 3)
LEVELS = torch.arange(256, dtype=torch.float64) / 255


def bernoulli(part: Bernoulli, eta: Tensor, x: Tensor) -> Tensor:
    return D.Bernoulli(logits=eta).log_prob(x.expand_as(eta))


def normal(part: Normal, eta: Tensor, x: Tensor) -> Tensor:
    return D.Normal(eta, 1.0).log_prob(x)  # std is 1 until a training batch has been seen


def discretized_logistic(part: DiscretizedLogistic, eta: Tensor, x: Tensor) -> Tensor:
    mean, log_scale = eta.tensor_split(2, dim=-3)
    x, mean = x.expand_as(mean), mean.detach()
    level = (255 * x).round()
    # On the scale of levels, where the bin of level k is k - 1/2 .. k + 1/2.
    logistic = stats.logistic(loc=127.5 * (mean + 1), scale=127.5 * log_scale.detach().exp())
    upper = torch.from_numpy(logistic.cdf(level + 0.5)).masked_fill(level == 255, 1.0)
    lower = torch.from_numpy(logistic.cdf(level - 0.5)).masked_fill(level == 0, 0.0)
    return (upper - lower).log()


@dataclass(frozen=True)
class Entry:
    log_prob: Callable[[Any, Tensor, Tensor], Tensor]
    """Of each dimension: (part, eta, x) -> (n, B, C, H, W)."""
    values: Tensor | None
    """All values that one dimension can take; None for a density."""
    supports: set[str]
    mean_tolerance: float = 0.0
    """How far ``mean`` may be from the mean of the samples, beyond the error of sampling."""


TABLE = {
    "bernoulli": Entry(bernoulli, torch.tensor([0.0, 1.0], dtype=torch.float64), {"binary"}),
    "normal": Entry(normal, None, {"binary", "levels", "real"}),
    "discretized_logistic": Entry(discretized_logistic, LEVELS, {"binary", "levels"}, 1 / 510),
}
NAMES = sorted(contract.FAMILIES["likelihood"]["pixelwise"])


def likelihood(name: str, *shape: int) -> Any:
    return contract.build_part("likelihood", name, data_shape=shape or SHAPE).eval()


def draw(part: Any, name: str, n: int = 2, batch: int = 3) -> tuple[Tensor, Tensor]:
    """eta (n, B, P * C, ...) and x (B, C, ...)."""
    eta = 0.7 * torch.randn(n, batch, *part.parameter_shape, dtype=torch.float64)
    values = TABLE[name].values
    if values is None:
        return eta, torch.randn(batch, *part.data_shape, dtype=torch.float64)
    return eta, values[torch.randint(len(values), (batch, *part.data_shape))]


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
    values = TABLE[name].values
    part = likelihood(name, 1)
    eta = 2 * torch.randn(50, 1, *part.parameter_shape, dtype=torch.float64)
    if values is None:
        values, cell = contract.grid(1, half_width=20.0, points=2001)
    else:
        values, cell = values.unsqueeze(-1), 1.0
    total = part.log_prob(eta.expand(-1, len(values), -1), values).exp().sum(1) * cell
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


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
    n, part, values = 50_000, likelihood(name, 1), TABLE[name].values
    eta = torch.randn(1, 1, *part.parameter_shape, dtype=torch.float64)
    log_p = part.log_prob(eta.expand(-1, n, -1), part.sample(eta[0].expand(n, -1)))
    nodes, cell = contract.grid(1, 20.0, 2001) if values is None else (values.unsqueeze(-1), 1.0)
    log_p_all = part.log_prob(eta.expand(-1, len(nodes), -1), nodes)
    expected = (log_p_all.exp() * log_p_all).sum() * cell
    assert (log_p.mean() - expected).abs() < 5 * log_p.std() / n**0.5


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    part = likelihood(name, 1, 2, 2)
    eta, x = draw(part, name)
    assert torch.autograd.gradcheck(lambda eta: part.log_prob(eta, x), eta.requires_grad_())


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


def test_bernoulli_at_extreme_logits() -> None:
    # Probabilities of exactly 0 and 1 in float32: the logarithm of a sigmoid would be -inf or lose the rest.
    eta = torch.tensor([[[200.0], [-200.0], [200.0], [-200.0], [12.0]]])
    x = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]])
    expected = torch.tensor([[0.0, 0.0, -200.0, -200.0, -math.log1p(math.exp(-12))]])
    torch.testing.assert_close(Bernoulli((1,)).log_prob(eta, x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", ["fixed", "learned"])
def test_normal_with_a_given_std(sigma: Literal["fixed", "learned"]) -> None:
    part = Normal(SHAPE, sigma=sigma, std=0.2).double()
    eta, x = draw(part, "normal")
    log_p = part.log_prob(eta, x)
    torch.testing.assert_close(log_p, D.Normal(eta, 0.2).log_prob(x).sum((2, 3, 4)))
    assert log_p.requires_grad == (sigma == "learned")
    # The optimizer is given what is trained, and nothing else.
    assert [name for name, _ in part.named_parameters()] == ["log_std"] * (sigma == "learned")


def test_normal_learned_sigma_has_the_right_gradient() -> None:
    part = Normal(SHAPE, sigma="learned", std=0.5).double()
    eta, x = draw(part, "normal")
    assert torch.autograd.gradcheck(lambda log_std: part.log_prob(eta, x), part.log_std)


def test_normal_optimal_sigma_is_the_best_for_the_batch() -> None:
    part = Normal(SHAPE).double().train()
    eta, x = draw(part, "normal")
    optimal = float(part.log_prob(eta, x).sum())
    mse = float((eta - x).square().mean())
    others = [
        float(D.Normal(eta, factor * mse**0.5).log_prob(x).sum()) for factor in (0.8, 0.95, 0.999, 1.001, 1.05, 1.2)
    ]
    assert optimal == pytest.approx(float(D.Normal(eta, mse**0.5).log_prob(x).sum()))
    assert optimal > max(others)


def test_normal_optimal_sigma_has_the_gradient_of_the_log_of_the_error() -> None:
    # With sigma at its maximum, the log-likelihood of the batch is -N/2 log MSE + constant (Rybkin et al., eq. 6).
    part = Normal(SHAPE).double().train()
    eta, x = draw(part, "normal")
    (ours,) = torch.autograd.grad(part.log_prob(eta.requires_grad_(), x).sum(), eta)
    (theirs,) = torch.autograd.grad(-0.5 * eta.numel() * (eta - x).square().mean().log(), eta)
    torch.testing.assert_close(ours, theirs)


def test_normal_optimal_sigma_is_a_constant_of_training_in_evaluation() -> None:
    part = Normal(SHAPE).double()
    batches = [draw(part, "normal") for _ in range(3)]
    for eta, x in batches:
        part.train().log_prob(eta, x)
    mse = torch.stack([(eta - x).square().mean() for eta, x in batches]).mean()
    eta, x = draw(part, "normal", batch=8)
    log_p = part.eval().log_prob(5 * eta, x)
    torch.testing.assert_close(log_p, D.Normal(5 * eta, mse.sqrt()).log_prob(x).sum((2, 3, 4)))
    # No x is scored with a sigma that saw it: alone or among others, it gets the same number.
    torch.testing.assert_close(log_p[:, :1], part.log_prob(5 * eta[:, :1], x[:1]))
    noise = part.sample(torch.zeros(100, *SHAPE, dtype=torch.float64))
    assert float(noise.std()) == pytest.approx(float(mse.sqrt()), rel=0.1)


def test_normal_running_sigma_travels_with_the_weights() -> None:
    part = Normal(SHAPE).double().train()
    part.log_prob(*draw(part, "normal"))
    copy = Normal(SHAPE).double()
    copy.load_state_dict(part.state_dict())
    eta, x = draw(part, "normal")
    assert (copy.eval().log_prob(eta, x) == part.eval().log_prob(eta, x)).all()


def test_normal_running_sigma_forgets() -> None:
    part = Normal((1,)).double().train()
    x = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(100):
        part.log_prob(torch.full((1, 1, 1), 3.0, dtype=torch.float64), x)
    for _ in range(1000):
        part.log_prob(torch.full((1, 1, 1), 0.5, dtype=torch.float64), x)
    expected = 0.25 + 8.75 * 0.99**1000
    assert float(part.state_dict()["_running_mse"]) == pytest.approx(expected, rel=1e-9)


def test_normal_perfect_reconstruction_stays_finite() -> None:
    part = Normal(SHAPE).train()
    x = torch.rand(3, *SHAPE)
    eta = x.expand(1, *x.shape).clone().requires_grad_()
    log_p = part.log_prob(eta, x)
    log_p.sum().backward()
    expected = math.prod(SHAPE) * (6 - 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(log_p, torch.full((1, 3), expected))
    assert eta.grad is not None
    assert (eta.grad == 0).all()


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf, math.nan])
def test_normal_refuses_a_std_that_is_none(std: float) -> None:
    with pytest.raises(ValueError, match=r"^std must be positive and finite"):
        Normal(SHAPE, std=std)


def test_normal_refuses_an_unknown_sigma() -> None:
    with pytest.raises(ValueError, match=r"^sigma must be 'fixed', 'learned' or 'optimal', got 'best'"):
        Normal(SHAPE, sigma="best")  # pyright: ignore[reportArgumentType]


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
