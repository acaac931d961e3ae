"""Binarization: every byte's frequency of ones against x / 255."""

import pytest
import torch
from scipy import stats

from attelbo.data import binarize
from attelbo.data.binarize import _bytes_below_255, _has_byte_255, draw_bits, threshold_bits

DRAWS = 20_000


@pytest.fixture
def levels() -> torch.Tensor:
    """All 256 bytes, ``DRAWS`` times each."""
    return torch.arange(256, dtype=torch.uint8).repeat(DRAWS, 1)


def test_ones_are_as_frequent_as_the_byte_over_255(levels):
    ones = draw_bits(levels, torch.Generator().manual_seed(0)).double().sum(0)
    assert ones[0] == 0
    assert ones[255] == DRAWS
    p = torch.arange(1, 255, dtype=torch.float64) / 255
    z = (ones[1:255] - DRAWS * p) / (DRAWS * p * (1 - p)).sqrt()
    # Of 254 standard normals the largest is below 4.5 with probability 0.998; the seed is fixed.
    assert z.abs().max() < 4.5
    # Comparing with bytes 0..255 instead would give x / 256, which puts this sum 13 standard errors off.
    assert abs(z.sum() / 254**0.5) < 3


def test_bytes_are_uniform_on_0_to_254():
    u = _bytes_below_255(torch.empty(1_000_003, dtype=torch.uint8), torch.Generator().manual_seed(0))
    counts = torch.bincount(u.long(), minlength=256)
    assert counts[255] == 0
    assert stats.chisquare(counts[:255].numpy()).pvalue > 1e-3


def test_bytes_that_are_drawn_again_are_uniform_on_0_to_254_too(monkeypatch):
    """They are 3 % of all, which would hide it."""
    monkeypatch.setattr(binarize, "_has_byte_255", lambda words: words.new_ones(len(words)))
    u = _bytes_below_255(torch.empty(300_000, dtype=torch.uint8), torch.Generator().manual_seed(0))
    counts = torch.bincount(u.long(), minlength=256)
    assert counts[255] == 0
    assert stats.chisquare(counts[:255].numpy()).pvalue > 1e-3


def test_neighbouring_draws_are_independent():
    x = torch.full((200_000, 8), 127, dtype=torch.uint8)
    bits = draw_bits(x, torch.Generator().manual_seed(0)).double()
    correlation = torch.corrcoef(bits.T) - torch.eye(8)
    assert correlation.abs().max() < 4.5 / 200_000**0.5


def test_words_with_a_byte_255_are_found():
    words = torch.empty(10_000, dtype=torch.int64).random_(-(2**63), None, generator=torch.Generator().manual_seed(0))
    expected = (words.view(-1, 1).view(torch.uint8) == 255).any(1)
    assert 200 < expected.sum() < 400
    assert torch.equal(_has_byte_255(words) != 0, expected)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 1, 7, 7)])
def test_any_shape(shape):
    x = torch.full(shape, 255, dtype=torch.uint8)
    assert torch.equal(draw_bits(x), torch.ones(shape, dtype=torch.uint8))


def test_draws_follow_the_default_generator():
    x = torch.full((50, 50), 100, dtype=torch.uint8)
    torch.manual_seed(3)
    first, second = draw_bits(x), draw_bits(x)
    torch.manual_seed(3)
    assert torch.equal(draw_bits(x), first)
    assert not torch.equal(first, second)


def test_threshold_is_one_half():
    assert threshold_bits(torch.tensor([0, 127, 128, 255], dtype=torch.uint8)).tolist() == [0, 0, 1, 1]
