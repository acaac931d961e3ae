"""Mutual information and aggregate KL against quadrature and the closed form of a linear model."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from attelbo.experiments.evaluation.splits import mean_over_rows
from attelbo.latent import DiagonalNormal, FullNormal, StandardNormal
from attelbo.metrics import information as module
from attelbo.metrics.information import aggregate_log_prob, bias_of_few_rows, information_terms, marginal_log_prob


def batches(mean: torch.Tensor, std: torch.Tensor, size: int) -> tuple[list[DiagonalNormal], list[int]]:
    parts = list(zip(mean.split(size), std.log().split(size), strict=True))
    return [DiagonalNormal(*part) for part in parts], [len(part[0]) for part in parts]


def estimate(mean: torch.Tensor, std: torch.Tensor, size: int = 100, some: torch.Tensor | None = None, seed: int = 7):
    posteriors, sizes = batches(mean, std, size)
    torch.manual_seed(seed)  # not the seed of the rows
    drawn = [q.rsample_with_log_prob(1) for q in posteriors]
    z, log_q = (torch.cat([part[i][0] for part in drawn]) for i in (0, 1))
    log_p = StandardNormal(mean.shape[1:]).log_prob(z.unsqueeze(0))[0]
    marginals = marginal_log_prob(z if some is None else z[some], posteriors, sizes)
    terms = information_terms(z, log_q, log_p, posteriors, sizes, marginals, some)
    numbers = {key: value for name in terms for key, value in mean_over_rows(name, terms[name]).items()}
    return SimpleNamespace(**numbers, bias=bias_of_few_rows(terms["mutual_information"]))


def test_few_rows_by_quadrature():
    """Five rows, each repeated: the mixture is the same, and the noise of z is averaged out."""
    mean = np.array([-2.0, -0.5, 0.0, 0.7, 3.0])
    std = np.array([0.3, 0.2, 1.0, 0.1, 0.5])

    def mixture(z: float) -> float:
        return norm.pdf(z, mean, std).mean()

    def entropy(density) -> float:
        points = sorted([*mean, *(mean - 2 * std), *(mean + 2 * std)])
        return quad(lambda z: -density(z) * math.log(density(z)), -12, 12, points=points, limit=500)[0]

    of_mixture = entropy(mixture)
    mutual = of_mixture - (0.5 * np.log(2 * np.pi * np.e) + np.log(std)).mean()
    kl = 0.5 * (math.log(2 * math.pi) + (mean**2 + std**2).mean()) - of_mixture
    rows = torch.arange(5).repeat(800)
    found = estimate(torch.tensor(mean)[rows].unsqueeze(1), torch.tensor(std)[rows].unsqueeze(1), 1000)
    assert found.mutual_information == pytest.approx(mutual, abs=4 * found.mutual_information_std_error)
    assert found.aggregate_kl == pytest.approx(kl, abs=4 * found.aggregate_kl_std_error)
    assert found.mutual_information_std_error < 0.03
    assert found.aggregate_kl_std_error < 0.03


@pytest.mark.parametrize(("slope", "noise"), [(0.8, 0.6), (1.5, 0.5)])
def test_a_linear_encoder_in_closed_form(slope, noise):
    """x ~ N(0, 1)^2, z|x ~ N(slope x, noise^2): q(z) is N(0, slope^2 + noise^2)^2."""
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    found = estimate(slope * x, torch.full_like(x, noise))
    variance = slope**2 + noise**2
    assert found.mutual_information == pytest.approx(math.log(variance / noise**2), abs=0.1)
    assert found.aggregate_kl == pytest.approx(variance - 1 - math.log(variance), abs=0.1)


def test_the_two_are_the_rate():
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    std = 0.2 + x.abs()
    found = estimate(x, std, 70)
    rate = 0.5 * (x.square() + std.square() - 1).sum(1) - std.log().sum(1)
    error = math.hypot(found.mutual_information_std_error, found.aggregate_kl_std_error)
    assert found.mutual_information + found.aggregate_kl == pytest.approx(float(rate.mean()), abs=3 * error)


def test_terms_of_the_aggregate_kl_in_closed_form():
    """x ~ N(0, 1)^3, z|x ~ N(A x, s^2): q(z) is N(0, C), C = A A^T + s^2."""
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = torch.tensor([[0.9, 0.0, 0.3], [1.2, 0.5, 0.0], [-0.9, 0.2, 0.4]], dtype=torch.float64)
    c = np.cov((x @ a.T).numpy().T, bias=True) + 0.6**2 * np.eye(3)  # of these rows
    found = estimate(x @ a.T, torch.full_like(x, 0.6), 1000)
    variances = np.diag(c)
    correlation = 0.5 * (np.log(variances).sum() - np.linalg.slogdet(c)[1])
    assert correlation > 0.3
    assert found.total_correlation == pytest.approx(correlation, abs=4 * found.total_correlation_std_error + 0.02)
    kl = 0.5 * (variances - 1 - np.log(variances)).sum()
    assert found.dimension_wise_kl == pytest.approx(kl, abs=4 * found.dimension_wise_kl_std_error + 0.02)
    assert found.total_correlation_std_error < 0.03
    # mutual information + total correlation + dimension-wise KL = KL
    rate = float(0.5 * ((x @ a.T).square() + 0.6**2 - 1).sum(1).mean() - 3 * math.log(0.6))
    total = found.mutual_information + found.total_correlation + found.dimension_wise_kl
    assert total == pytest.approx(rate, abs=0.1)
    assert found.total_correlation + found.dimension_wise_kl == pytest.approx(found.aggregate_kl, abs=1e-9)


def test_terms_at_some_of_the_samples_are_those_of_all_within_their_error():
    mean = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 3)
    whole, part = (estimate(mean, torch.full_like(mean, 0.6), 1000, some) for some in (None, torch.arange(0, 2000, 4)))
    assert (part.mutual_information, part.aggregate_kl) == (whole.mutual_information, whole.aggregate_kl)
    for name in ("total_correlation", "dimension_wise_kl"):
        error = getattr(part, f"{name}_std_error")
        assert getattr(whole, f"{name}_std_error") == pytest.approx(error / 2, rel=0.2)
        assert getattr(part, name) == pytest.approx(getattr(whole, name), abs=4 * error)
        assert getattr(part, name) != getattr(whole, name)


def test_marginals_are_those_of_scipy():
    mean = torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]], dtype=torch.float64)
    std = torch.tensor([[1.0, 0.5], [0.2, 2.0], [0.7, 0.1]], dtype=torch.float64)
    z = torch.tensor([[0.3, 0.6], [1.9, -2.0]], dtype=torch.float64)
    expected = [sum(np.log(norm.pdf(one[d], mean[:, d], std[:, d]).mean()) for d in (0, 1)) for one in z]
    for size in (1, 2, 3):
        found = marginal_log_prob(z, *batches(mean, std, size))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_extremes():
    """Encodings that are all the same say nothing; encodings far apart say which of the N rows it is, log N."""
    same = estimate(torch.zeros(50, 2), torch.ones(50, 2))
    assert (same.mutual_information, same.aggregate_kl) == pytest.approx((0, 0), abs=1e-5)
    apart = estimate(torch.arange(50.0).double().unsqueeze(1), torch.full((50, 1), 1e-3).double())
    assert apart.mutual_information == pytest.approx(math.log(50), abs=1e-5)


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("numbers", [1, 2**21])
def test_batches_and_chunks_do_not_matter(size, numbers, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", numbers)
    mean, std = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)).double()
    z = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = norm.logpdf(z.numpy()[:, None], mean, std.exp()).sum(2)
    found = aggregate_log_prob(z, *batches(mean, std.exp(), size))
    np.testing.assert_allclose(found, np.logaddexp.reduce(expected, 1) - math.log(40), rtol=1e-10)


@pytest.mark.parametrize("log_prob", [aggregate_log_prob, marginal_log_prob])
def test_no_more_numbers_at_once_than_are_allowed(log_prob, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 100)
    asked = []

    class Recorded(DiagonalNormal):
        def cross_log_prob_by_dimension(self, z: torch.Tensor) -> torch.Tensor:
            asked.append(z.shape[0] * self.mean.numel())
            return super().cross_log_prob_by_dimension(z)

        def cross_log_prob(self, z: torch.Tensor) -> torch.Tensor:
            return self.cross_log_prob_by_dimension(z).sum(2)

    log_prob(torch.zeros(50, 3), [Recorded(torch.zeros(7, 3), torch.zeros(7, 3))], [7])
    assert sum(asked) == 50 * 7 * 3
    assert max(asked) == 4 * 7 * 3  # a fifth sample would be one too many


def test_any_posterior_with_a_density():
    mean = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    diagonal, full = DiagonalNormal(mean, torch.zeros(20, 2)), FullNormal(mean, torch.eye(2).expand(20, 2, 2))
    z = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(aggregate_log_prob(z, [full], [20]), aggregate_log_prob(z, [diagonal], [20]))


def test_a_sample_for_each_row():
    with pytest.raises(ValueError, match=r"^one sample for each of 5 rows, got 4, 4 and 4"):
        information_terms(
            torch.zeros(4, 1), torch.zeros(4), torch.zeros(4), *batches(torch.zeros(5, 1), torch.ones(5, 1), 2)
        )


@pytest.mark.parametrize(("noise", "n"), [(0.5, 100), (0.3, 200), (0.2, 200)])
def test_the_bias_of_few_rows_is_told(noise, n):
    """x ~ N(0, 1)^3, z|x ~ N(sqrt(1 - noise^2) x, noise^2): q(z) is the prior, I(x; z) is -3 log noise, all else 0."""
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in range(30)]
    encoded = [(math.sqrt(1 - noise**2) * x, torch.full_like(x, noise)) for x in sets]
    found = [estimate(mean, std, seed=seed) for seed, (mean, std) in enumerate(encoded)]

    def mean(name: str) -> float:
        return sum(getattr(each, name) for each in found) / len(found)

    bias, exact = mean("bias"), -3 * math.log(noise)
    assert bias > mean("mutual_information_std_error") / 2
    for name, off in (
        ("mutual_information", exact - mean("mutual_information")),
        ("aggregate_kl", mean("aggregate_kl")),
        ("total_correlation", mean("total_correlation")),
    ):
        assert 0.4 * bias < off < 1.1 * bias, name


def test_rows_that_nothing_tells_apart_from_more_of_them():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert estimate(0 * x, 1 + 0 * x).bias == pytest.approx(-math.log1p(-1 / 50))  # each is a fiftieth of q(z)
    assert estimate(100 * x, 1e-3 + 0 * x).bias > 10  # each is all of its own
