"""The streaming estimate: exact counts, no dependence on the chunk, honest errors."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attelbo.latent import estimate_log_likelihood


class Stream:
    """Hands out given log-weights (S, B) in order, and keeps account."""

    def __init__(self, log_weights: Tensor) -> None:
        self.log_weights = log_weights
        self.asked: list[int] = []

    def __call__(self, k: int) -> Tensor:
        start = sum(self.asked)
        self.asked.append(k)
        return self.log_weights[start : start + k]


@pytest.mark.parametrize(
    ("n", "chunk", "asked"),
    [(10, 3, [3, 3, 3, 1]), (10, 5, [5, 5]), (10, 100, [10]), (1, 1, [1]), (7, 7, [7]), (3, 1, [1, 1, 1])],
)
def test_draws_exactly_what_was_asked_for(n: int, chunk: int, asked: list[int]) -> None:
    stream = Stream(torch.randn(1000, 2))
    estimate_log_likelihood(stream, n, chunk)
    assert stream.asked == asked


@pytest.mark.parametrize("chunk", [1, 7, 64, 999, 1000, 5000])
def test_chunk_changes_nothing(chunk: int) -> None:
    log_weights = 3 * torch.randn(1000, 4) - 90
    weights = np.exp(log_weights.double().numpy())
    estimate = estimate_log_likelihood(Stream(log_weights), 1000, chunk)
    effective = weights.sum(0) ** 2 / (weights**2).sum(0)
    error = weights.std(0, ddof=1) / 1000**0.5 / weights.mean(0)
    np.testing.assert_allclose(estimate.log_likelihood, np.log(weights.mean(0)), rtol=1e-12)
    np.testing.assert_allclose(estimate.effective_sample_size, effective, rtol=1e-10)
    np.testing.assert_allclose(estimate.standard_error, error, rtol=1e-10)


def test_standard_error_is_the_spread_of_repeated_estimates() -> None:
    repeats, n = 2000, 400
    estimate = estimate_log_likelihood(Stream(0.7 * torch.randn(n, repeats)), n, chunk=128)
    assert float(estimate.log_likelihood.std()) == pytest.approx(float(estimate.standard_error.mean()), rel=0.1)
    assert float(estimate.log_likelihood.mean()) == pytest.approx(0.7**2 / 2, abs=0.01)


def test_equal_weights_and_one_that_dominates() -> None:
    equal = estimate_log_likelihood(Stream(torch.full((8, 1), -5.0)), 8, chunk=3)
    assert float(equal.log_likelihood) == pytest.approx(-5)
    assert float(equal.effective_sample_size) == pytest.approx(8)
    assert float(equal.standard_error) == pytest.approx(0, abs=1e-7)
    one = estimate_log_likelihood(Stream(torch.tensor([-200.0, 0.0, -200.0, -200.0]).unsqueeze(-1)), 4, chunk=3)
    assert float(one.log_likelihood) == pytest.approx(-math.log(4))
    assert float(one.effective_sample_size) == pytest.approx(1)
    assert float(one.standard_error) == pytest.approx(1)


def test_precision_survives_many_small_chunks_far_from_zero() -> None:
    estimate = estimate_log_likelihood(Stream(torch.full((5000, 1), -1000.0)), 5000, chunk=1)
    assert float(estimate.log_likelihood) == pytest.approx(-1000, rel=1e-12)
    assert float(estimate.effective_sample_size) == pytest.approx(5000, rel=1e-9)


def test_single_sample_has_no_error_estimate() -> None:
    estimate = estimate_log_likelihood(Stream(torch.tensor([[-2.0]])), 1)
    assert float(estimate.log_likelihood) == -2
    assert float(estimate.standard_error) == math.inf


def test_no_sample_hits() -> None:
    log_weights = torch.full((5, 2), -math.inf)
    log_weights[1, 1] = 0.0
    estimate = estimate_log_likelihood(Stream(log_weights), 5, chunk=1)
    assert estimate.log_likelihood.tolist() == [-math.inf, pytest.approx(-math.log(5))]
    assert estimate.effective_sample_size.tolist() == [0.0, pytest.approx(1.0)]
    assert estimate.standard_error.tolist() == [math.inf, pytest.approx(1.0)]


def test_nan_weights_are_not_hidden() -> None:
    estimate = estimate_log_likelihood(Stream(torch.tensor([[math.nan], [0.0]])), 2, chunk=1)
    assert all(value.isnan().all() for value in estimate)


def test_keeps_no_graph() -> None:
    weight = torch.zeros(1, requires_grad=True)
    graphs = []

    def log_weights(k: int) -> Tensor:
        value = weight.expand(k, 1) * 2
        graphs.append(value.requires_grad)
        return value

    estimate = estimate_log_likelihood(log_weights, 4, chunk=2)
    assert graphs == [False, False]
    assert not estimate.log_likelihood.requires_grad


def test_refuses_wrong_numbers() -> None:
    with pytest.raises(ValueError, match=r"^n_samples must be at least 1, got 0"):
        estimate_log_likelihood(Stream(torch.zeros(5, 1)), 0)
    with pytest.raises(ValueError, match=r"^chunk must be at least 1, got 0"):
        estimate_log_likelihood(Stream(torch.zeros(5, 1)), 5, chunk=0)
    with pytest.raises(ValueError, match="gave 5 samples where 6 were asked for"):
        estimate_log_likelihood(Stream(torch.zeros(5, 1)), 6)
