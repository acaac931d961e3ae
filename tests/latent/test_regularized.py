"""Each registered objective that adds to a bound or changes it: definitions in the plainest form, known answers,
finite differences."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import latent_contract as contract
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch import distributions as D

from attelbo.latent import (
    DIP,
    BetaTC,
    Capacity,
    DiagonalNormal,
    Distribution,
    Evidence,
    FullNormal,
    InfoVAE,
    LowRankNormal,
    Objective,
)
from attelbo.latent.divergences import SCALES, Kernel, maximum_mean_discrepancy, sliced_wasserstein
from attelbo.latent.objectives.beta_tc import Estimator, aggregate_posterior
from attelbo.latent.spaces import OneHot, Product, Real

K, B, DIM, N_ROWS = 2, 4, 3, 50
SPACE = Real((DIM,))
GIVEN: dict[str, dict[str, Any]] = {"beta_tc": {"n_rows": N_ROWS}, "capacity": {"space": SPACE}}
"""What the model, or the test, tells beside the file."""


@dataclass
class FixedPrior:
    """A generative side whose draws are known."""

    draws: Tensor

    def sample_prior(self, n: int, y: Tensor | None = None) -> Tensor:
        return self.draws[:n]


def evidence(log_likelihood: Tensor, mean: Tensor, log_std: Tensor) -> Evidence:
    q = DiagonalNormal(mean, log_std)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(K, B, DIM, dtype=torch.float64, generator=generator)
    prior: Any = FixedPrior(torch.randn(K * B, DIM, dtype=torch.float64, generator=generator))
    kl = D.kl_divergence(D.Normal(mean, log_std.exp()), D.Normal(0.0, 1.0))
    return Evidence(log_likelihood, kl, q.mean + q.std * noise, q, generative=prior)


def random_inputs() -> tuple[Tensor, ...]:
    shapes = ((K, B), (B, DIM), (B, DIM))
    return tuple(0.7 * torch.randn(shape, dtype=torch.float64) for shape in shapes)


# The loss written down once more, in the plainest way, for the arguments of the file.


def elbo(e: Evidence) -> float:
    return float(e.log_likelihood.mean() - e.kl.sum(1).mean())


def beta_tc(e: Evidence) -> float:
    """-ELBO + (2 - 1) TC, log q(z) and log q(z_d) by the stratified weights, one number after the other."""
    q: Any = e.posterior
    correlation = []
    for k, i in itertools.product(range(K), range(B)):
        z, joint, marginals = e.z[k, i], 0.0, [0.0] * DIM
        for j in range(B):
            weight = 1 / N_ROWS if i == j else (N_ROWS - 1) / (N_ROWS * (B - 1))
            density = D.Normal(q.mean[j], q.std[j]).log_prob(z).exp().tolist()
            joint += weight * math.prod(density)
            marginals = [total + weight * value for total, value in zip(marginals, density, strict=True)]
        correlation.append(math.log(joint) - sum(map(math.log, marginals)))
    return -elbo(e) + sum(correlation) / len(correlation)


def capacity(e: Evidence) -> float:
    node = contract.spec("objective", "capacity")
    return distortion(e) + node["gamma"] * abs(float(e.kl.sum(1).mean()) - node["capacity"])


def dip(e: Evidence) -> float:
    q: Any = e.posterior
    covariance = np.cov(q.mean.detach().numpy(), rowvar=False, bias=True) + np.diag(q.std.detach().square().mean(0))
    penalty = sum((covariance[i, j] - (i == j)) ** 2 for i in range(DIM) for j in range(DIM))
    return -elbo(e) + penalty


def kernel(a: Tensor, b: Tensor, kind: str = "imq") -> float:
    squared = float((a - b).square().sum())
    bases = [2 * len(a) * scale for scale in SCALES]
    return sum(c / (c + squared) if kind == "imq" else math.exp(-squared / c) for c in bases) / len(bases)


def discrepancy(z: Tensor, other: Tensor, kind: str = "imq") -> float:
    """The U-statistic of one set, as a double sum."""
    n, total = len(z), 0.0
    for i, j in itertools.product(range(n), range(n)):
        if i != j:
            total += (kernel(z[i], z[j], kind) + kernel(other[i], other[j], kind)) / (n * (n - 1))
        total -= 2 * kernel(z[i], other[j], kind) / n**2
    return total


def mean_discrepancy(e: Evidence) -> float:
    draws: Any = e.generative
    return sum(discrepancy(z, other) for z, other in zip(e.z, draws.draws.view(K, B, DIM), strict=True)) / K


def distortion(e: Evidence) -> float:
    return -float(e.log_likelihood.mean())


def info(e: Evidence) -> float:
    node = contract.spec("objective", "info")
    rate = float(e.kl.sum(1).mean())
    weight = node["alpha"] + node["weight"] - 1
    return distortion(e) + (1 - node["alpha"]) * rate + weight * mean_discrepancy(e)


def wae_mmd(e: Evidence) -> float:
    return distortion(e) + contract.spec("objective", "wae_mmd")["weight"] * mean_discrepancy(e)


def transport(z: Tensor, other: Tensor, directions: Tensor) -> float:
    """The mean squared distance of the best of all pairings, for each direction, by linear programming."""
    costs = []
    for direction in directions.T:
        cost = ((z @ direction).unsqueeze(1) - (other @ direction).unsqueeze(0)).square().detach().numpy()
        costs.append(cost[linear_sum_assignment(cost)].mean())
    return float(np.mean(costs))


def sliced(e: Evidence) -> float:
    node = contract.spec("objective", "sliced_wasserstein")
    torch.manual_seed(0)
    directions = torch.randn(DIM, node["n_projections"], dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    draws: Any = e.generative
    sets = zip(e.z, draws.draws.view(K, B, DIM), strict=True)
    return distortion(e) + node["weight"] * sum(transport(z, other, directions) for z, other in sets) / K


TABLE: dict[str, Callable[[Evidence], float]] = {
    "beta_tc": beta_tc,
    "capacity": capacity,
    "dip": dip,
    "info": info,
    "sliced_wasserstein": sliced,
    "wae_mmd": wae_mmd,
}
NAMES = sorted(contract.FAMILIES["objective"]["regularized"])


def objective(name: str, **arguments: Any) -> Any:
    return contract.build_part("objective", name, **GIVEN.get(name, {}), **arguments)


def test_every_objective_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_definition(name: str) -> None:
    terms = evidence(*random_inputs())
    torch.manual_seed(0)
    loss = objective(name)(terms)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(TABLE[name](terms))


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    part = objective(name)

    def loss(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        return part(evidence(*inputs))

    assert torch.autograd.gradcheck(loss, tuple(t.requires_grad_() for t in random_inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    terms = evidence(*random_inputs())
    q, prior, part = cast("Any", terms.posterior), cast("Any", terms.generative), objective(name).float()
    single = Evidence(
        terms.log_likelihood.float(),
        terms.kl.float(),
        terms.z.float(),
        DiagonalNormal(q.mean.float(), q.log_std.float()),
        generative=cast("Any", FixedPrior(prior.draws.float())),
    )
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(part(single))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_has_a_finite_loss(name: str) -> None:
    terms = evidence(*random_inputs())
    alone = Evidence(
        terms.log_likelihood[:, :1],
        terms.kl[:1],
        terms.z[:, :1],
        DiagonalNormal(terms.posterior.mean[:1], terms.z[0, :1]),
        generative=terms.generative,
    )
    assert objective(name)(alone).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_no_samples_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^n_samples must be at least 1, got 0"):
        objective(name, n_samples=0)
    assert objective(name, n_samples=3).n_samples == 3


REFUSED = [
    ("beta_tc", {"beta": -1.0}, r"^beta must be finite and not negative, got -1.0"),
    ("beta_tc", {"estimator": "exact"}, r"^estimator must be stratified or weighted, got 'exact'"),
    ("capacity", {"capacity": -1.0}, r"^capacity must be finite and not negative, got -1.0"),
    ("capacity", {"gamma": math.nan}, r"^gamma must be finite"),
    ("capacity", {"discrete_capacity": 1.0}, r"^discrete_capacity is for choices .* there are 3 real numbers"),
    ("dip", {"kind": "iii"}, r"^kind must be i or ii, got 'iii'"),
    ("dip", {"diagonal": math.inf}, r"^diagonal must be finite"),
    ("info", {"alpha": 1.5}, r"^alpha must be between 1 - weight, .*, and 1, got 1.5"),
    ("info", {"weight": 0.1, "alpha": 0.5}, r"^alpha must be between 1 - weight, 0.9, and 1, got 0.5"),
    ("info", {"kernel": "linear"}, r"^kernel must be imq or rbf, got 'linear'"),
    ("sliced_wasserstein", {"n_projections": 0}, r"^n_projections must be at least 1, got 0"),
    ("sliced_wasserstein", {"weight": -1.0}, r"^weight must be finite and not negative, got -1.0"),
    ("wae_mmd", {"kernel": "linear"}, r"^kernel must be imq or rbf, got 'linear'"),
    ("wae_mmd", {"weight": -1.0}, r"^weight must be finite and not negative, got -1.0"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_refuses_what_makes_no_sense(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective(name, **arguments)


# -- beta-TC -------------------------------------------------------------------------------------------


def data_set(n: int, dim: int) -> DiagonalNormal:
    """Posteriors of n rows, overlapping."""
    mean, log_std = torch.randn(2, n, dim, dtype=torch.float64)
    return DiagonalNormal(mean, -0.5 + 0.2 * log_std)


def log_aggregate(q: DiagonalNormal, z: Tensor) -> Tensor:
    """log q(z) of z (M, D) from all rows: (M,)."""
    components = D.Independent(D.Normal(q.mean, q.std), 1)
    uniform = D.Categorical(logits=torch.zeros(len(q.mean), dtype=torch.float64))
    return D.MixtureSameFamily(uniform, components).log_prob(z)


REPEATS = 150


def ratios(estimate: Callable[[DiagonalNormal, Tensor], Tensor]) -> tuple[float, float]:
    """The mean of estimate / q(z) over minibatches of 64 of 1000 rows, and its standard error."""
    q = data_set(1000, dim=2)
    means = []
    for _ in range(REPEATS):
        rows = torch.randperm(1000)[:64]
        part = DiagonalNormal(q.mean[rows], q.log_std[rows])
        z = part.rsample(1)
        means.append((estimate(part, z)[0] - log_aggregate(q, z[0])).exp().mean())
    return float(torch.stack(means).mean()), float(torch.stack(means).std() / REPEATS**0.5)


def test_stratified_estimate_is_unbiased() -> None:
    log_n = torch.tensor(math.log(1000), dtype=torch.float64)
    mean, error = ratios(lambda q, z: aggregate_posterior(q, z, log_n, "stratified").log_joint)
    assert abs(mean - 1) < 4 * error
    assert error < 0.01


def test_stratified_weights_in_the_first_column_would_be_found() -> None:
    # The fault of three well-known projects: the weight of a row's own posterior is given to the first row's.
    own, other = math.log(1 / 1000), math.log(999 / (1000 * 63))
    log_weights = torch.full((64, 64), other, dtype=torch.float64)
    log_weights[:, 0] = own

    def misplaced(q: DiagonalNormal, z: Tensor) -> Tensor:
        log_density = D.Normal(q.mean, q.std).log_prob(z.unsqueeze(2)).sum(-1)
        return torch.logsumexp(log_density + log_weights, dim=2)

    mean, error = ratios(misplaced)
    assert mean - 1 > 10 * error


@pytest.mark.parametrize("n_rows", [B, 50, 10**6])
def test_weights_sum_to_one(n_rows: int) -> None:
    # Of equal posteriors every q(z) is the same.
    q = DiagonalNormal(*torch.zeros(2, B, DIM, dtype=torch.float64))
    z, log_n = q.rsample(K), torch.tensor(math.log(n_rows), dtype=torch.float64)
    torch.testing.assert_close(aggregate_posterior(q, z, log_n, "stratified").log_joint, q.log_prob(z))


def test_weighted_estimate_is_the_stratified_one_of_a_whole_data_set_but_for_log_n() -> None:
    q = data_set(20, DIM)
    z, log_n = q.rsample(1), torch.tensor(math.log(20), dtype=torch.float64)
    weighted = aggregate_posterior(q, z, log_n, "weighted")
    exact = log_aggregate(q, z[0]).unsqueeze(0)
    torch.testing.assert_close(weighted.log_joint, exact - log_n)
    torch.testing.assert_close(aggregate_posterior(q, z, log_n, "stratified").log_joint, exact)


def test_weighted_estimate_is_a_lower_bound() -> None:
    log_n = torch.tensor(math.log(1000), dtype=torch.float64)
    q = data_set(1000, dim=2)
    part = DiagonalNormal(q.mean[:64], q.log_std[:64])
    z = part.rsample(50)
    estimate = aggregate_posterior(part, z, log_n, "weighted").log_joint.mean()
    assert estimate < log_aggregate(q, z.flatten(0, 1)).mean()


def test_information_correlation_and_dimension_wise_kl_add_up_to_the_kl() -> None:
    # A finite data set, all of it in the minibatch, and integrals over z by quadrature.
    n, dim = 6, 2
    q = data_set(n, dim)
    nodes, cell = contract.grid(dim, half_width=8.0, points=161)
    z = nodes.unsqueeze(1).expand(-1, n, -1)
    aggregate = aggregate_posterior(q, z, torch.tensor(math.log(n), dtype=torch.float64), "stratified")
    log_q = q.log_prob(z)

    def expected(value: Tensor) -> float:
        return float((log_q.exp() * value).sum(0).mean() * cell)

    information = expected(log_q - aggregate.log_joint)
    correlation = expected(aggregate.log_joint - aggregate.log_marginals)

    # Each marginal by itself, on a line.
    line, step = contract.grid(1, half_width=8.0, points=2001)
    dimension_wise = 0.0
    for d in range(dim):
        log_marginal = log_aggregate(DiagonalNormal(q.mean[:, d : d + 1], q.log_std[:, d : d + 1]), line)
        log_ratio = log_marginal - D.Normal(0.0, 1.0).log_prob(line.squeeze(1))
        dimension_wise += float((log_marginal.exp() * log_ratio).sum() * step)

    kl = float(D.kl_divergence(D.Normal(q.mean, q.std), D.Normal(0.0, 1.0)).sum(1).mean())
    assert information + correlation + dimension_wise == pytest.approx(kl, rel=1e-6)
    assert 0 < information < math.log(n)
    assert correlation > 0


def test_weights_of_one_give_the_elbo_and_others_the_parts() -> None:
    terms = evidence(*random_inputs())
    loss = lambda a, b, g: float(BetaTC(beta=b, alpha=a, gamma=g, n_rows=N_ROWS).double()(terms))  # noqa: E731
    assert loss(1.0, 1.0, 1.0) == pytest.approx(-elbo(terms))
    parts = [loss(1, 0, 0), loss(0, 1, 0), loss(0, 0, 1)]
    assert sum(parts) - 2 * distortion(terms) == pytest.approx(-elbo(terms))
    assert loss(2, 3, 4) == pytest.approx(2 * parts[0] + 3 * parts[1] + 4 * parts[2] - 8 * distortion(terms))


def test_number_of_rows_is_told_and_travels_with_the_state() -> None:
    terms = evidence(*random_inputs())
    told, given = BetaTC().double(), BetaTC(n_rows=N_ROWS).double()
    assert float(told(terms)) == pytest.approx(float(BetaTC(n_rows=B).double()(terms)))  # at least the minibatch
    told.at_start(N_ROWS)
    given.at_start(7)
    assert float(told(terms)) == pytest.approx(float(given(terms)))
    loaded = BetaTC().double()
    loaded.load_state_dict(told.state_dict())
    assert float(loaded(terms)) == float(told(terms))


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_far_from_all_other_posteriors_the_estimate_is_finite(estimator: Estimator) -> None:
    q = DiagonalNormal(1e3 * torch.randn(B, DIM), torch.full((B, DIM), -10.0))
    aggregate = aggregate_posterior(q, q.rsample(K), torch.tensor(3.0), estimator)
    assert all(value.isfinite().all() for value in aggregate)


# -- capacity ------------------------------------------------------------------------------------------


def test_capacity_follows_its_schedule_in_place() -> None:
    linear = {"_target_": "attelbo.latent.schedules.Linear", "end": 20.0, "fraction": 0.5}
    part = Capacity(SPACE, capacity=linear, gamma=3.0).double()
    buffer, terms = part.capacity.value, evidence(*random_inputs())
    rate = float(terms.kl.sum(1).mean())
    for step, wanted in ((0, 0.0), (25, 10.0), (50, 20.0), (99, 20.0)):
        part.at_step(step, 100)
        assert float(part(terms)) == pytest.approx(distortion(terms) + 3 * abs(rate - wanted))
    assert part.capacity.value is buffer


def test_the_loss_tells_the_best_epoch_only_where_no_capacity_moves() -> None:
    growing = {"_target_": "attelbo.latent.schedules.Linear", "end": 25.0, "fraction": 0.5}
    joint = Product((6,), (Real((2,)), OneHot((1, 4))))
    assert Capacity(SPACE, capacity=5.0).watched == "loss"
    assert Capacity(joint, capacity=5.0, discrete_capacity=1.0).watched == "loss"
    assert Capacity(SPACE, capacity=growing).watched is None
    assert Capacity(joint, capacity=5.0, discrete_capacity=growing).watched is None


def test_choices_have_a_capacity_of_their_own() -> None:
    # Two real numbers, then one choice among ten and two among three: five groups of KL.
    space = Product((38,), (Real((2,)), OneHot((1, 10)), OneHot((2, 3))))
    kl = torch.tensor([[1.0, 2.0, 0.5, 0.25, 0.125], [3.0, 0.0, 0.5, 0.25, 0.375]])
    terms = Evidence(torch.full((1, 2), -10.0), kl, torch.zeros(1, 2, 2), DiagonalNormal(*torch.zeros(2, 2, 2)))
    apart = Capacity(space, capacity=5.0, discrete_capacity=0.5, gamma=2.0)
    assert float(apart(terms)) == pytest.approx(10 + 2 * abs(3.0 - 5.0) + 2 * abs(1.0 - 0.5))
    apart = Capacity(space, capacity=5.0, discrete_capacity=1.75, gamma=2.0)
    assert float(apart(terms)) == pytest.approx(10 + 2 * abs(3.0 - 5.0) + 2 * abs(1.0 - 1.75))
    assert float(Capacity(space, capacity=5.0, gamma=2.0)(terms)) == pytest.approx(10 + 2 * abs(4.0 - 5.0))
    with pytest.raises(
        ValueError, match=r"^discrete_capacity is for choices beside other latents; there are 1 choices"
    ):
        Capacity(OneHot((1, 10)), discrete_capacity=1.0)


# -- DIP -----------------------------------------------------------------------------------------------


def without_elbo(q: Distribution) -> Evidence:
    return Evidence(torch.zeros(1, len(q.mean), dtype=q.mean.dtype), torch.zeros_like(q.mean), q.rsample(1), q)


def full_evidence(mean: Tensor, scale_tril: Tensor) -> Evidence:
    return without_elbo(FullNormal(mean, scale_tril))


def test_dip_of_full_covariances() -> None:
    mean = torch.randn(B, DIM, dtype=torch.float64)
    factor = torch.randn(B, DIM, DIM, dtype=torch.float64).tril()
    covariance = torch.cov(mean.T, correction=0) + (factor @ factor.mT).mean(0)
    off = covariance - covariance.diagonal().diag()
    expected = 2 * off.square().sum() + 7 * (covariance.diagonal() - 1).square().sum()
    loss = DIP(off_diagonal=2.0, diagonal=7.0)(full_evidence(mean, factor))
    torch.testing.assert_close(loss, expected)


def test_dip_of_a_low_rank_is_that_of_the_same_full_covariance() -> None:
    mean, log_std, directions = torch.randn(B, DIM), torch.randn(B, DIM), torch.randn(B, DIM, 2)
    q = LowRankNormal(mean, log_std, directions)
    covariance = (
        q.std.square().diag_embed() + (q.std.unsqueeze(-1) * directions) @ (q.std.unsqueeze(-1) * directions).mT
    )
    full = FullNormal(mean, torch.linalg.cholesky(covariance))
    torch.testing.assert_close(DIP()(without_elbo(q)), DIP()(without_elbo(full)))


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_dip_is_zero_where_the_covariance_is_the_identity(kind: Any) -> None:
    # Four points whose covariance is the identity; for the aggregate, half of it comes from each side.
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    half = 0.5**0.5
    mean, std = (corners, 3.0) if kind == "i" else (half * corners, half)
    terms = full_evidence(mean, std * torch.eye(2, dtype=torch.float64).expand(4, -1, -1))
    assert float(DIP(kind)(terms)) == pytest.approx(0, abs=1e-12)
    assert float(DIP(kind)(full_evidence(1.1 * mean, std * torch.eye(2, dtype=torch.float64).expand(4, -1, -1)))) > 0.01


# -- distances between samples -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_is_the_double_sum(kind: Kernel) -> None:
    z, other = torch.randn(2, K, B, DIM, dtype=torch.float64)
    expected = [discrepancy(*pair, kind) for pair in zip(z, 0.5 + other, strict=True)]
    assert maximum_mean_discrepancy(z, 0.5 + other, kind).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_of_equal_distributions_is_zero_on_average(kind: Kernel) -> None:
    z, other = torch.randn(2, 20_000, 5, DIM, dtype=torch.float64)
    values = maximum_mean_discrepancy(z, other, kind)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20_000**0.5
    assert (values < 0).any()  # as of an unbiased estimate


def test_discrepancy_of_normals_is_the_closed_form() -> None:
    # E exp(-|x - y|^2 / C) of x - y ~ N(m, v I) is (C / (C + 2 v))^(D / 2) exp(-|m|^2 / (C + 2 v)).
    mean, std = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64), 0.7

    def expected_kernel(shift: float, variance: float) -> float:
        bases = [2 * DIM * scale for scale in SCALES]
        values = [(c / (c + 2 * variance)) ** (DIM / 2) * math.exp(-shift / (c + 2 * variance)) for c in bases]
        return sum(values) / len(values)

    shift = float(mean.square().sum())
    exact = expected_kernel(0, 2 * std**2) + expected_kernel(0, 2) - 2 * expected_kernel(shift, std**2 + 1)
    z, other = torch.randn(2, 20_000, 4, DIM, dtype=torch.float64)
    values = maximum_mean_discrepancy(mean + std * z, other, "rbf")
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / 20_000**0.5


def test_samples_of_one_x_are_sets_of_their_own() -> None:
    # Pairs of the same x are no independent draws of the aggregate: all posteriors are points here, so that such pairs
    # would count as near.
    mean = torch.randn(B, DIM, dtype=torch.float64)
    q = DiagonalNormal(mean, torch.full_like(mean, -10.0))
    prior: Any = FixedPrior(torch.randn(K * B, DIM, dtype=torch.float64))
    terms = Evidence(torch.zeros(K, B, dtype=torch.float64), torch.zeros(B, 1), q.rsample(K), q, generative=prior)
    expected = sum(discrepancy(mean, other) for other in prior.draws.view(K, B, DIM)) / K
    assert float(InfoVAE(alpha=1.0, weight=1.0)(terms)) == pytest.approx(expected, rel=1e-3)


def test_sliced_distance_of_one_dimension_is_that_of_normals() -> None:
    # W2^2 between N(m, s^2) and N(0, 1) is m^2 + (s - 1)^2.
    z, other = torch.randn(2, 1, 400_000, 1, dtype=torch.float64)
    value = float(sliced_wasserstein(0.7 + 1.5 * z, other, n_projections=1))
    assert value == pytest.approx(0.7**2 + 0.5**2, rel=0.02)


def test_sliced_distance_of_a_shift_is_its_mean_square_along_a_direction() -> None:
    # |theta . c|^2 is |c|^2 / D on average over the sphere.
    z = torch.randn(1, 10, 4, dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    value = float(sliced_wasserstein(z + shift, z, n_projections=200_000))
    assert value == pytest.approx(float(shift.square().sum()) / 4, rel=0.02)
    assert float(sliced_wasserstein(z, z.flip(1), n_projections=10)) == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize("name", ["info", "sliced_wasserstein", "wae_mmd"])
def test_without_a_model_it_says_what_is_missing(name: str) -> None:
    terms = evidence(*random_inputs())
    part: Objective = objective(name)
    bare = Evidence(terms.log_likelihood, terms.kl, terms.z, terms.posterior)
    with pytest.raises(ValueError, match="evidence has no generative"):
        part(bare)
