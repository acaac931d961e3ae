"""Perplexity and share of used codes on known answers."""

import math

import pytest
import torch

from attelbo.metrics import CodeUsage


def usage(codes: torch.Tensor, n_codes: int, n_codebooks: int = 1) -> tuple[float, float]:
    metric = CodeUsage(n_codes, n_codebooks)
    metric.update(codes)
    result = metric.compute()
    assert list(result) == ["perplexity", "code_usage"]
    return float(result["perplexity"]), float(result["code_usage"])


def test_known_answers() -> None:
    everyone = torch.arange(8).repeat(5).view(10, 2, 2)
    assert usage(everyone, 8) == pytest.approx((8, 1))
    assert usage(everyone, 16) == pytest.approx((8, 0.5))
    assert usage(torch.full((10, 2, 2), 3), 8) == pytest.approx((1, 1 / 8))
    shares = (0.5, 0.25, 0.25)
    perplexity = math.exp(-sum(p * math.log(p) for p in shares))
    assert usage(torch.tensor([[0, 0, 1, 2]]), 4) == pytest.approx((perplexity, 0.75))


def test_an_index_of_another_codebook_is_another_code() -> None:
    codes = torch.stack([torch.arange(4).repeat(4), torch.zeros(16, dtype=torch.int64)], dim=-1)
    assert usage(codes, 4, n_codebooks=2) == pytest.approx((math.sqrt(4 * 1), 5 / 8))


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [60, 40]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    torch.manual_seed(0)
    codes = torch.randint(50, (100, 3)) ** 2 // 50
    metric = CodeUsage(50)
    for part in codes.split(sizes):
        metric.update(part)
    p = torch.bincount(codes.flatten(), minlength=50) / codes.numel()
    assert float(metric.compute()["perplexity"]) == pytest.approx(
        float(torch.distributions.Categorical(p).entropy().exp())
    )
    metric.reset()
    metric.update(torch.zeros(2, 3, dtype=torch.int64))
    assert float(metric.compute()["perplexity"]) == 1
