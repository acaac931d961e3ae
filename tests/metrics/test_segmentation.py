"""The adjusted Rand index against scikit-learn's, image by image."""

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from attelbo.metrics import adjusted_rand_index


@pytest.mark.parametrize(("n_true", "n_found"), [(2, 2), (3, 4), (5, 3), (1, 3), (3, 1)])
def test_against_scikit_learn(n_true, n_found) -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(-1, n_true, (20, 40), generator=generator)
    drawn = torch.randint(n_found, (20, 40), generator=generator)
    found = torch.where(torch.rand(20, 40, generator=generator) < 0.6, true.clamp(0, n_found - 1), drawn)
    expected = [adjusted_rand_score(t[t >= 0], f[t >= 0]) for t, f in zip(true, found, strict=True)]
    torch.testing.assert_close(adjusted_rand_index(found, true), torch.tensor(expected, dtype=torch.float64))


def test_names_of_clusters_do_not_matter() -> None:
    true = torch.tensor([[0, 0, 1, 2, 2, -1]], dtype=torch.int8)
    assert adjusted_rand_index(torch.tensor([[2, 2, 0, 1, 1, 0]]), true) == 1


def test_one_object() -> None:
    true = torch.tensor([[0, 0, 0, -1]] * 3)
    found = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 2, 3]])
    assert adjusted_rand_index(found, true).tolist() == [1, 0, 0]


def test_nothing_to_tell_apart() -> None:
    scores = adjusted_rand_index(torch.tensor([[0, 1], [0, 1]]), torch.tensor([[-1, -1], [-1, 3]]))
    assert scores[0].isnan()
    assert scores[1] == 1
