"""UDR on models whose codes are known: copies, rotations, collapse; similarities against scipy and closed forms."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.stats import ortho_group, spearmanr

from attelbo.metrics import disentanglement_ranking
from attelbo.metrics.disentanglement.agreement import PENALTY, agreement, similarity

VALUES = torch.tensor([-2.0, -1.0, 0.0, 1.5, 3.0], dtype=torch.float64)
FACTORS = torch.tensor(list(itertools.product(VALUES.tolist(), repeat=4)), dtype=torch.float64)
"""A full grid: its columns are not correlated at all."""
KL = torch.ones(4)
EXPECTED = {"lasso": 1 - PENALTY, "spearman": 1.0}


def rotated(seed: int) -> torch.Tensor:
    return FACTORS @ torch.from_numpy(ortho_group.rvs(4, random_state=seed))


@pytest.mark.parametrize("kind", EXPECTED)
def test_copies_in_another_order_with_other_signs_and_scales_agree_wholly(kind):
    copy = FACTORS[:, [2, 0, 3, 1]] * torch.tensor([-3.0, 0.1, 1.0, -1.0]) + 5
    found = disentanglement_ranking([FACTORS, copy, -FACTORS], [KL] * 3, kind)
    assert found == pytest.approx([EXPECTED[kind]] * 3, abs=1e-6)


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_rotated_agree_less_and_the_disentangled_among_them_are_told(kind):
    models = [FACTORS, FACTORS[:, [1, 0, 2, 3]], -FACTORS, 2 * FACTORS, rotated(0), rotated(1)]
    found = disentanglement_ranking(models, [KL] * 6, kind)
    assert found[:4] == pytest.approx([EXPECTED[kind]] * 4, abs=1e-6)  # most of the others are copies
    assert max(found[4:]) < EXPECTED[kind] - 0.3


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_turn_of_two_latents_by_half_a_right_angle(kind):
    """Standardized latents a, b and (a + b) / sqrt 2, (a - b) / sqrt 2: all similarities are r = 1 / sqrt 2, less the
    penalty, and r^2 / 2 r = r / 2 of each latent. By ranks too, of normal numbers, 6 / pi asin(r / 2)."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 2, dtype=torch.float64, generator=generator)
    turned = a @ torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    r = math.sqrt(0.5) - PENALTY if kind == "lasso" else 6 / math.pi * math.asin(math.sqrt(0.5) / 2)
    found = disentanglement_ranking([a, turned], [KL[:2]] * 2, kind)
    assert found == pytest.approx([r / 2] * 2, abs=0.005)


@pytest.mark.parametrize("kind", EXPECTED)
def test_uninformative_latents_are_left_out(kind):
    """They add neither to nor take from it, though by chance or by their noise they may resemble others."""
    noise = torch.randn(len(FACTORS), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    more = torch.cat([noise[:, :1], FACTORS, 1e-9 * FACTORS[:, :1]], 1)
    kl = torch.tensor([0.009, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert disentanglement_ranking([more, FACTORS], [kl, KL], kind) == pytest.approx([EXPECTED[kind]] * 2, abs=1e-6)
    counted = disentanglement_ranking([more, FACTORS], [torch.ones(6), KL], kind)
    assert max(counted) < EXPECTED[kind] - 0.05


@pytest.mark.parametrize("kind", EXPECTED)
def test_collapsed_models(kind):
    """Without a latent that says anything 0; with one of the four, the one is wholly found and three of the others
    are not: (1 + 1) / (1 + 4) of what copies have."""
    nothing, one = torch.zeros(4), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert disentanglement_ranking([FACTORS, FACTORS], [nothing, KL], kind) == [0.0, 0.0]
    found = disentanglement_ranking([FACTORS, FACTORS], [one, KL], kind)
    assert found == pytest.approx([0.4 * EXPECTED[kind]] * 2, abs=1e-6)
    constant = torch.zeros_like(FACTORS)
    assert disentanglement_ranking([constant, FACTORS], [KL, KL], kind) == pytest.approx([0.0, 0.0], abs=1e-9)


def test_the_median_is_over_the_others():
    """Three copies and one that agrees with none: the copies have two copies beside them, and keep 1."""
    noise = torch.randn(len(FACTORS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = disentanglement_ranking([FACTORS, noise, -FACTORS, FACTORS], [KL] * 4, "spearman")
    assert [found[i] for i in (0, 2, 3)] == pytest.approx([1.0] * 3)
    assert found[1] < 0.1


def test_rank_correlations_are_those_of_scipy():
    a, b = (torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    a, b = (a + b).round(decimals=1), (b.exp()).round(decimals=1)  # with ties
    found = similarity(a, b, "spearman")
    for i, j in itertools.product(range(3), repeat=2):
        expected: Any = spearmanr(a[:, i], b[:, j])
        assert float(found[i, j]) == pytest.approx(abs(expected.statistic), abs=1e-12)


def test_the_lasso_meets_its_optimality_conditions():
    """At the minimum of |y - x w|^2 / 2 N + penalty |w| the residual's covariance with x is the penalty with the sign
    of w, and below it where w is 0."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2000, 4, dtype=torch.float64, generator=generator)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = (0.8 * x[:, :1] + 0.3 * x[:, 1:2] + 0.05 * x[:, 2:3]).repeat(1, 2)
    w = similarity(x, y, "lasso")
    assert w.shape == (4, 2)
    covariance = x.mT @ (y - x @ w) / len(x)
    assert covariance[:2].flatten().tolist() == pytest.approx([PENALTY] * 4, abs=1e-3)
    assert bool((covariance.abs() <= PENALTY + 1e-3).all())
    assert w[2:].abs().max() == 0


def test_agreement_by_hand():
    """Columns: .9^2 / 1, .4^2 / .6; rows: .9^2 / 1.1, .4^2 / .5."""
    table = torch.tensor([[0.9, 0.2], [0.1, 0.4]])
    assert agreement(table) == pytest.approx((0.81 + 0.16 / 0.6 + 0.81 / 1.1 + 0.16 / 0.5) / 4)


def test_what_cannot_be_ranked():
    for models in ([FACTORS], [FACTORS, FACTORS[:-1]]):
        with pytest.raises(ValueError, match="at least two models on the same rows"):
            disentanglement_ranking(models, [KL] * len(models), "lasso")
