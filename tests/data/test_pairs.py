"""Pairs of rows: the two differ in exactly as many factors as asked for, and all that do are drawn alike."""

import itertools
from collections import Counter

import pytest
import torch

from attelbo.data.pairs import TRIES, Pairing
from attelbo.errors import ConfigError

VALUES = (2, 3, 1, 4)  # one of the factors does not vary
GRID = torch.tensor(list(itertools.product(*map(range, VALUES))))
SPRITES = {"_target_": "attelbo.data.sources.Sprites", "test_size": 4096}


def differing(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return (rows != others).sum(1)


def drawn(pairing: Pairing, index: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return pairing.partners(index, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pairs_differ_in_exactly_k_factors_and_all_that_do_are_as_likely_as_they_should_be(k):
    """Against the enumeration of all sets of k factors and all of their other values."""
    n, row = 40_000, 13
    others = drawn(Pairing(GRID, k), torch.full((n,), row))
    counts = Counter(map(tuple, GRID[others].tolist()))
    sets = list(itertools.combinations((0, 1, 3), k))
    expected = {}
    for chosen in sets:
        values = [
            [v for v in range(VALUES[f]) if v != GRID[row, f]] if f in chosen else [int(GRID[row, f])] for f in range(4)
        ]
        combinations = list(itertools.product(*values))
        expected |= dict.fromkeys(combinations, 1 / len(sets) / len(combinations))
    assert counts.keys() == expected.keys()
    assert sum(expected.values()) == pytest.approx(1)
    for combination, p in expected.items():
        assert counts[combination] == pytest.approx(n * p, abs=4.5 * (n * p * (1 - p)) ** 0.5)


def test_random_numbers_of_factors_leave_one_that_is_shared():
    index = torch.arange(len(GRID)).repeat(500)
    found = differing(GRID[index], GRID[drawn(Pairing(GRID, "random"), index)]).bincount()
    assert found[0] == 0
    assert len(found) == 3  # 1 or 2 of three
    assert float(found[1] / len(index)) == pytest.approx(0.5, abs=4.5 * 0.5 / len(index) ** 0.5)


def test_missing_combinations_are_drawn_again_and_who_finds_no_other_stands_alone():
    """As often as all draws would miss: each hits a row that differs in factor f with 1 / (3 (n_f - 1))."""
    kept = torch.rand(len(GRID), generator=torch.Generator().manual_seed(3)) < 0.3
    rows = torch.cat([GRID[kept], torch.tensor([[7, 7, 0, 7]])])  # one value more of each factor
    n, index = 2000, torch.arange(len(rows)).repeat(2000)
    others = drawn(Pairing(rows, 1), index)
    assert set(differing(rows[index], rows[others]).tolist()) == {0, 1}
    alone = (others == index).view(n, -1).double().mean(0)
    of_draw = torch.tensor([1 / (3 * n_values) if n_values > 1 else 0.0 for n_values in VALUES])
    for row in range(len(rows)):
        differs = rows != rows[row]
        hit = float((differs[differs.sum(1) == 1] * of_draw).sum())
        miss = (1 - hit) ** TRIES
        assert float(alone[row]) == pytest.approx(miss, abs=4.5 * (miss * (1 - miss) / n) ** 0.5 + 1e-12)
    assert float(alone[-1]) == 1


def test_repeated_combinations_are_drawn_alike():
    rows = torch.tensor([[0, 0], [1, 0], [1, 0], [1, 0], [0, 1]])
    others = drawn(Pairing(rows, 1), torch.zeros(30_000, dtype=torch.int64)).bincount(minlength=5)
    assert (others / 30_000).tolist() == pytest.approx([0, 1 / 6, 1 / 6, 1 / 6, 1 / 2], abs=0.015)


def test_a_combination_beyond_all_rows_is_as_missing_as_one_between():
    """Of three rows, the first has no row that differs in both factors: its only one would be the last of the grid."""
    pairing = Pairing(torch.tensor([[0, 0], [1, 0], [0, 1]]), 2)
    assert drawn(pairing, torch.tensor([0, 1, 2])).tolist() == [0, 2, 1]


@pytest.fixture(scope="module")
def sprites():
    from attelbo.data.image import ImageDataModule

    return ImageDataModule(
        "sprites", SPRITES, root="data", seed=1, batch_size=32, eval_batch_size=50, validation_size=2048, pairs=2
    )


def test_the_partner_is_the_image_of_a_training_row(sprites):
    assert sprites.spec.pairs
    everything = sprites.materialize(torch.arange(sprites.n_rows("train")), "train")
    factors_of = {
        image.numpy().tobytes(): row
        for image, row in zip(everything.x.to(torch.uint8), everything.y.tolist(), strict=True)
    }
    torch.manual_seed(5)
    batch = sprites.materialize(torch.arange(500), "train")
    assert batch.partner.shape == batch.x.shape
    factors = torch.tensor([factors_of[image.numpy().tobytes()] for image in batch.partner.to(torch.uint8)])
    assert differing(batch.y, factors).tolist() == [2] * 500
    assert torch.equal(batch.x, everything.x[:500])
    again = sprites.materialize(torch.arange(500), "train")
    assert not torch.equal(batch.partner, again.partner)
    torch.manual_seed(5)
    assert torch.equal(batch.partner, sprites.materialize(torch.arange(500), "train").partner)


def test_rows_to_evaluate_come_alone(sprites):
    for split in ("validation", "test", "trained"):
        assert sprites.materialize(torch.arange(3), split).partner is None


def test_what_cannot_be_paired(digits, sprites, capsys):
    with pytest.raises(
        ValueError, match=r"^pairs must be null for digits, of which fewer than two factors vary, got 1"
    ):
        digits(pairs=1)
    with pytest.raises(ValueError, match=r"^pairs must be in 1\.\.5, the factors that vary, or random, got 6"):
        digits(name="sprites", source=SPRITES, pairs=6)
    with pytest.raises(ConfigError, match=r"^data\.pairs must be null for these rows, of which fewer than two "):
        digits(name="sprites", source=SPRITES, pairs=5, train_size=1, validation_size=50).setup()
    capsys.readouterr()
    sprites.setup()
    assert capsys.readouterr().err == ""
    digits(name="sprites", source=SPRITES, pairs=1, train_size=500).setup()
    assert capsys.readouterr().err.startswith("note: for ")
