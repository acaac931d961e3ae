"""Disentanglement on known answers, and each score against another way to compute it."""

import math

import numpy as np
import pytest
import torch
from sklearn.feature_selection import r_regression
from sklearn.metrics import mutual_info_score

from attelbo.metrics.disentanglement import (
    beta_vae_score,
    dci,
    disentanglement_scores,
    explicitness,
    factor_vae_score,
    interventional_robustness,
    modularity,
    mutual_information_gap,
    pairwise_mutual_information,
    separated_attribute_predictability,
    votes,
)
from attelbo.metrics.disentanglement.importance import importance_scores

VALUES = (3, 4, 8, 6)
FACTORS = torch.cartesian_prod(*map(torch.arange, VALUES)).repeat(3, 1)  # (1728, 4): every combination equally often
ORDERED = (False, True, True, True)
PERFECT = FACTORS.double()
GAPS = ("mig", "sap")


def scores(codes: torch.Tensor, factors: torch.Tensor = FACTORS) -> dict[str, float]:
    return disentanglement_scores(codes, codes, factors, ORDERED, seed=0).scores


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# -- known answers -------------------------------------------------------------------------------------


def other_order_sign_and_scale() -> torch.Tensor:
    return PERFECT[:, [2, 0, 3, 1]] * torch.tensor([-3.0, 0.1, 20.0, -1.0]) + torch.tensor([5.0, 0.0, -8.0, 1.0])


def with_constants() -> torch.Tensor:
    return torch.cat([torch.zeros(len(PERFECT), 2), PERFECT, torch.full((len(PERFECT), 1), 3.0)], 1)


def with_noise_that_says_nothing() -> torch.Tensor:
    return torch.cat([PERFECT, noise(len(PERFECT), 1)], 1)


@pytest.mark.parametrize("codes", [PERFECT, other_order_sign_and_scale(), with_constants()])
def test_codes_that_are_the_factors(codes):
    for name, score in scores(codes).items():
        assert score == pytest.approx(1, abs=1e-9), name


def test_a_latent_that_says_nothing_costs_nothing_but_modularity():
    found = scores(with_noise_that_says_nothing())
    for name, score in found.items():
        if name not in ("modularity", "irs"):
            assert score == pytest.approx(1, abs=0.02), name
    assert 0.85 < found["modularity"] < 0.97  # one of five latents is for no factor in particular


def test_codes_that_are_constant():
    found = scores(torch.zeros(len(FACTORS), 3))
    for name in ("mig", "sap", "modularity", "explicitness", "irs", "dci_disentanglement", "dci_completeness"):
        assert found[name] == pytest.approx(0, abs=1e-9), name
    for name in ("factor_vae_score", "beta_vae_score"):  # which of four factors is guessed
        assert found[name] == pytest.approx(0.25, abs=0.06), name
    # The most frequent class of each factor is guessed.
    assert found["dci_informativeness"] == pytest.approx(sum(1 / n for n in VALUES) / 4, abs=0.05)


def test_codes_that_say_everything_twice():
    found = scores(torch.cat([PERFECT, PERFECT], 1))
    for name, score in found.items():
        if name in GAPS:
            assert score == pytest.approx(0, abs=1e-9), name
        elif name != "dci_completeness":
            assert score == pytest.approx(1, abs=1e-9), name
    # Were the importance shared evenly, it would be 1 - log 2 / log 8; a forest shares it by chance.
    assert 1 - math.log(2) / math.log(8) - 1e-9 <= found["dci_completeness"] < 0.9


def test_codes_that_mix_the_factors():
    standardized = (PERFECT - PERFECT.mean(0)) / PERFECT.std(0)
    rotation = torch.linalg.qr(noise(4, 4)).Q
    found = scores(standardized @ rotation)
    for name in ("mig", "sap", "dci_disentanglement", "dci_completeness"):
        assert found[name] < 0.5, name
    assert found["modularity"] < 0.9
    assert found["factor_vae_score"] < 1


def test_permuted_rows_say_nothing():
    shuffled = PERFECT[torch.randperm(len(PERFECT), generator=torch.Generator().manual_seed(0))]
    found = scores(shuffled)
    for name in ("mig", "sap", "explicitness", "dci_disentanglement", "dci_completeness"):
        assert found[name] < 0.1, name
    assert found["irs"] < 0.25  # some rows of each value are near the ends of the range, if not at them
    assert found["factor_vae_score"] < 0.4
    assert found["beta_vae_score"] < 0.4


def test_more_factors_than_latents_and_the_other_way_round():
    """A table of latents and factors that is read the wrong way round gives another number (or none)."""
    two = PERFECT[:, :2]
    assert mutual_information_gap(two, FACTORS) == pytest.approx(2 / 4, abs=1e-9)
    assert separated_attribute_predictability(two, FACTORS, ORDERED) == pytest.approx(2 / 4, abs=1e-9)
    assert mutual_information_gap(PERFECT, FACTORS[:, :2]) == pytest.approx(1, abs=1e-9)
    assert mutual_information_gap(PERFECT[:, 1:2], FACTORS) == pytest.approx(1 / 4, abs=1e-9)
    # Each of the two factors in a latent of its own, and a third latent with both.
    both = (FACTORS[:, 0] * 4 + FACTORS[:, 1]).double().unsqueeze(1)
    assert mutual_information_gap(torch.cat([two, both], 1), FACTORS[:, :2]) == pytest.approx(0, abs=1e-9)


def test_a_latent_that_is_ignored_has_a_mean_that_tells_all_and_counts_for_nothing():
    means = torch.cat([PERFECT, 1e-3 * PERFECT], 1)
    samples = torch.cat([PERFECT + 0.01 * noise(*PERFECT.shape), noise(*PERFECT.shape)], 1)
    found = disentanglement_scores(means, samples, FACTORS, ORDERED, seed=0).scores
    for name, score in found.items():
        assert score == pytest.approx(1, abs=0.03), name


def test_factors_that_do_not_vary_are_left_out():
    constant = torch.zeros(len(FACTORS), 1, dtype=torch.int64)
    factors = torch.cat([constant, FACTORS, constant], 1)
    found = disentanglement_scores(PERFECT, PERFECT, factors, (False, *ORDERED, True), 0)
    assert found.scores == scores(PERFECT)
    assert found.varies == [False, True, True, True, True, False]


def test_two_factors_are_enough():
    found = disentanglement_scores(PERFECT[:, :2], PERFECT[:, :2], FACTORS[:, :2], ORDERED[:2], 0).scores
    assert all(score == pytest.approx(1, abs=1e-9) for score in found.values())


def test_scores_follow_from_the_seed():
    codes = PERFECT @ noise(4, 6)
    first = scores(codes)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - what sklearn would use without a seed
    assert scores(codes) == first
    other = disentanglement_scores(codes, codes, FACTORS, ORDERED, seed=1).scores
    assert other["factor_vae_score"] != first["factor_vae_score"]
    assert other["dci_disentanglement"] != first["dci_disentanglement"]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"^at least two factors must vary, got 1"):
        disentanglement_scores(PERFECT, PERFECT, FACTORS[:, :1], [True], 0)
    with pytest.raises(ValueError, match=r"must go together, got .* and 3"):
        disentanglement_scores(PERFECT, PERFECT, FACTORS, [True] * 3, 0)


def test_tables_have_the_scores_in_them():
    """The gaps of each table by a sort; latents in rows, factors in columns, those that vary."""
    codes, other = PERFECT @ noise(4, 5) + noise(len(PERFECT), 5), torch.zeros(len(FACTORS), 1, dtype=torch.int64)
    found = disentanglement_scores(codes, codes, torch.cat([FACTORS, other], 1), (*ORDERED, True), seed=0)
    for table, name in ((found.information, "mig"), (found.predictability, "sap")):
        assert table.shape == (5, 4)
        columns = np.sort(table.numpy(), 0)
        assert found.scores[name] == pytest.approx((columns[-1] - columns[-2]).mean(), abs=1e-12)
    assert importance_scores(found.importance) == (
        found.scores["dci_disentanglement"],
        found.scores["dci_completeness"],
    )
    assert found.scores["dci_informativeness"] == pytest.approx(float(found.accuracies.mean()))


def test_what_represents_x_can_be_chosen():
    means, samples = PERFECT, PERFECT + 4 * noise(*PERFECT.shape)

    def of(representation) -> dict[str, float]:
        return disentanglement_scores(means, samples, FACTORS, ORDERED, 0, representation).scores

    published, mean, sample = of("published"), of("mean"), of("sample")
    assert all(score == pytest.approx(1, abs=1e-9) for score in mean.values())
    assert published == mean | {"mig": sample["mig"]}
    assert sample["mig"] < 0.2
    assert sample["sap"] < 0.5


# -- one by one ----------------------------------------------------------------------------------------


def test_mutual_information_is_that_of_scikit_learn():
    codes = (PERFECT @ noise(4, 3) + noise(len(PERFECT), 3)).float()
    found = pairwise_mutual_information(codes, FACTORS + 7, n_bins=9)
    assert found.shape == (3, 4)
    for j, code in enumerate(codes.numpy().T):
        edges = np.histogram(code, 9)[1]
        bins = np.digitize(code, edges[1:-1])
        for k, factor in enumerate(FACTORS.numpy().T):
            assert float(found[j, k]) == pytest.approx(mutual_info_score(bins, factor), rel=1e-3)


def test_mutual_information_of_noise_has_the_bias_that_is_told():
    codes = torch.rand(len(PERFECT), 200, generator=torch.Generator().manual_seed(0))
    found = pairwise_mutual_information(codes, FACTORS, n_bins=20).mean(0)
    for k, n in enumerate(VALUES):
        assert float(found[k]) == pytest.approx(19 * (n - 1) / 2 / len(PERFECT), rel=0.05)


def test_modularity_by_its_formula():
    codes = PERFECT @ noise(4, 3)
    table = pairwise_mutual_information(codes, FACTORS).numpy()
    total = 0.0
    for row in table:
        best = row.max()
        template = np.where(row == best, best, 0.0)
        total += 1 - ((row - template) ** 2).sum() / (best**2 * 3)
    assert modularity(codes, FACTORS) == pytest.approx(total / 3, rel=1e-9)


def test_predictability_of_ordered_factors_is_the_squared_correlation():
    codes = PERFECT @ noise(4, 3)
    table = np.stack([r_regression(codes.numpy(), factor) ** 2 for factor in FACTORS.numpy().T])
    expected = np.mean([np.sort(row)[-1] - np.sort(row)[-2] for row in table])
    assert separated_attribute_predictability(codes, FACTORS, [True] * 4) == pytest.approx(expected, rel=1e-9)


def test_predictability_of_an_unordered_factor_is_the_accuracy_of_the_best_thresholds():
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([0, 1] * 300 + [1] * 300)  # the classes are not equally frequent
    code = torch.randn(900, generator=generator) + 1.5 * factor
    recall = max(
        float(((code < t)[factor == 0].double().mean() + (code >= t)[factor == 1].double().mean()) / 2) for t in code
    )
    found = separated_attribute_predictability(code.unsqueeze(1), factor.unsqueeze(1), [False])
    assert found == pytest.approx(2 * recall - 1, abs=1e-9)  # a constant would get one half


def test_importance_scores_by_hand():
    importance = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    disentanglement, completeness = importance_scores(importance)
    assert disentanglement == pytest.approx((1 * 0 + 1 * 1) / 2)
    share = np.array([1 / 3, 2 / 3])
    second = 1 + (share * np.log(share)).sum() / np.log(3)
    assert completeness == pytest.approx((0.5 * 1 + 1.5 * second) / 2)


def test_robustness_by_its_formula():
    codes = -(PERFECT @ noise(4, 3) / 4).exp().numpy()  # farthest from the mean is what lies below it
    total, weights = 0.0, 0.0
    for code in codes.T:
        largest = np.abs(code - code.mean()).max()
        within = []
        for factor in FACTORS.numpy().T:
            groups = [code[factor == value] for value in np.unique(factor)]
            within.append(np.mean([np.quantile(np.abs(group - group.mean()), 0.99) for group in groups]))
        total, weights = total + largest * (1 - min(within) / largest), weights + largest
    assert interventional_robustness(torch.from_numpy(codes), FACTORS) == pytest.approx(total / weights, rel=1e-9)


def test_a_latent_is_robust_to_what_it_does_not_say():
    """z = v_1 + 0.1 v_2, both uniform: with v_1 fixed what is left of its range is that of 0.1 v_2."""
    factors = torch.cartesian_prod(torch.arange(101), torch.arange(101))
    found = interventional_robustness((factors[:, 0] + 0.1 * factors[:, 1]).unsqueeze(1), factors)
    assert found == pytest.approx(1 - 0.1 / 1.1, abs=0.005)


def test_robustness_may_be_below_0():
    """Of the majority of three bits the mean is 1/2, of the rows that share a bit 1/4 or 3/4: 1 - (3/4) / (1/2)."""
    factors = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(100, 1)
    majority = (factors.sum(1) > 1).double().unsqueeze(1)
    assert interventional_robustness(majority, factors) == pytest.approx(-0.5, abs=1e-12)


def test_explicitness_is_the_area_under_the_curve():
    """Of N(m, 1) against N(0, 1) the area is Phi(m / sqrt 2)."""
    factors = torch.randint(2, (8000, 1), generator=torch.Generator().manual_seed(0))
    codes = noise(8000, 1) + 1.5 * factors
    area = torch.special.ndtr(torch.tensor(1.5 / 2**0.5)).item()
    assert explicitness(codes, factors, seed=0) == pytest.approx(2 * area - 1, abs=0.05)


def test_informativeness_is_an_accuracy_on_rows_not_learned_from():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2, (1000, 2), generator=generator)
    assert dci(noise(1000, 3), factors, seed=0).informativeness == pytest.approx(0.5, abs=0.06)


def test_votes_need_rows_that_agree():
    """The latent of the factor that was fixed does not vary at all; with other rows the classifier would guess."""
    assert factor_vae_score(PERFECT + 0.1 * noise(*PERFECT.shape), FACTORS, seed=3) == 1
    # One latent that is two factors at once votes for both; the third factor has its own.
    both = (FACTORS[:, 0] * 4 + FACTORS[:, 1]).double()
    codes = torch.stack([both, PERFECT[:, 2]], 1)
    assert factor_vae_score(codes, FACTORS[:, :3], seed=0) < 0.75


def test_votes_are_the_same_however_many_are_counted_at_a_time(monkeypatch):
    codes = PERFECT @ noise(4, 3) + noise(len(PERFECT), 3)
    at_once = [score(codes, FACTORS, seed=1, n_votes=50) for score in (factor_vae_score, beta_vae_score)]
    monkeypatch.setattr(votes, "_NUMBERS_AT_ONCE", 1)
    assert [score(codes, FACTORS, seed=1, n_votes=50) for score in (factor_vae_score, beta_vae_score)] == at_once


@pytest.mark.parametrize("score", [factor_vae_score, beta_vae_score])
def test_noise_is_told_by_chance_where_as_many_rows_agree_as_a_vote_draws(score):
    """Of five factors 0.2, within four standard errors of the 1,600 votes or more; of few rows, far more than that."""
    factors = torch.stack([torch.randint(n, (10_000,)) for n in (3, 6, 40, 32, 32)], 1)
    codes = noise(10_000, 5)
    assert score(codes, factors, seed=0, n_votes=1600) == pytest.approx(0.2, abs=0.04)
    assert score(codes[:100], factors[:100], seed=0, n_votes=1600) > 0.28


def test_pairs_that_agree_tell_the_factor():
    assert beta_vae_score(PERFECT, FACTORS, seed=0, n_votes=300) == 1
    rotation = torch.linalg.qr(noise(4, 4)).Q
    assert beta_vae_score(PERFECT @ rotation, FACTORS, seed=0, n_votes=300) > 0.9  # a linear classifier undoes it
