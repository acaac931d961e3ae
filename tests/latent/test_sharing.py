"""Posteriors that pairs of images share: averages against closed forms and quadrature, and which dimensions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from attelbo.latent import DiagonalNormal, share_posteriors
from attelbo.latent.sharing import averaged, distances

F64 = torch.float64


def pairs(rows: int = 3, dims: int = 5, seed: int = 0) -> DiagonalNormal:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(2 * rows, dims, dtype=F64, generator=generator, requires_grad=True)
    return DiagonalNormal(mean, 0.5 * torch.randn(2 * rows, dims, dtype=F64, generator=generator))


def test_distances_are_those_of_torch():
    q = pairs()
    one, other = Normal(q.mean[:3], q.std[:3]), Normal(q.mean[3:], q.std[3:])
    expected = (kl_divergence(one, other) + kl_divergence(other, one)) / 2
    torch.testing.assert_close(distances(q), expected)


def test_averages_by_hand():
    """N(1, 4) and N(3, 1): moments (2, 2.5); precisions 1/4 and 1, their mean 5/8, mean (1/4 + 3) / (5/4)."""
    q = DiagonalNormal(torch.tensor([[1.0], [3.0]], dtype=F64), torch.tensor([[math.log(2)], [0.0]], dtype=F64))
    mean, log_std = averaged(q, "gvae")
    assert [mean.item(), log_std.exp().square().item()] == pytest.approx([2.0, 2.5])
    mean, log_std = averaged(q, "ml_vae")
    assert [mean.item(), log_std.exp().square().item()] == pytest.approx([2.6, 1.6])


def test_the_product_is_the_normalized_one_by_quadrature():
    q = pairs()
    z = torch.linspace(-30, 30, 200_001, dtype=F64).view(-1, 1, 1)
    log_product = 0.5 * (Normal(q.mean[:3], q.std[:3]).log_prob(z) + Normal(q.mean[3:], q.std[3:]).log_prob(z))
    weights = log_product.softmax(0)
    expected = (weights * z).sum(0)
    mean, log_std = averaged(q, "ml_vae")
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(log_std.exp().square(), (weights * (z - expected).square()).sum(0))


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_dimensions_below_the_middle_are_shared_and_no_others(average):
    q = pairs(rows=40, dims=6)
    found = share_posteriors(q, average)
    mean, log_std = averaged(q, average)
    distance = distances(q)
    for row in range(40):
        values = distance[row].tolist()
        middle = (min(values) + max(values)) / 2
        for d, value in enumerate(values):
            for place in (row, 40 + row):
                expected = (
                    (mean[row, d], log_std[row, d]) if value < middle else (q.mean[place, d], q.log_std[place, d])
                )
                assert (found.mean[place, d], found.log_std[place, d]) == expected
    # The farthest stays, the nearest is shared.
    same = (found.mean[:40] == found.mean[40:]) & (found.log_std[:40] == found.log_std[40:])
    assert same.sum(1).min() >= 1
    assert same.sum(1).max() <= 5


@pytest.mark.parametrize("average", ["gvae", "ml_vae"])
def test_equal_posteriors_are_their_own_average(average):
    q = pairs(rows=1)
    twice = DiagonalNormal(q.mean[:1].repeat(2, 1), q.log_std[:1].repeat(2, 1))
    for found, own in zip(averaged(twice, average), (q.mean[:1], q.log_std[:1]), strict=True):
        torch.testing.assert_close(found, own)
    found = share_posteriors(twice, average)
    torch.testing.assert_close(found.mean, twice.mean)


def test_both_images_learn_from_what_they_share():
    q = pairs(rows=1)
    nearest = int(distances(q)[0].argmin())
    share_posteriors(q, "gvae").mean[0, nearest].backward()
    gradient = q.mean.grad
    assert gradient is not None
    assert gradient[:, nearest].tolist() == [0.5, 0.5]
    assert int((gradient != 0).sum()) == 2
