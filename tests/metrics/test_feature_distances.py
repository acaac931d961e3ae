"""Frechet and kernel distances against scipy's matrix root, sums over pairs and closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from attelbo.metrics import feature_distances, frechet_distance, kernel_distance


def features(n: int, seed: int, dim: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator) @ torch.randn(dim, dim, generator=generator) + seed


def test_frechet_is_the_formula_with_scipys_root():
    a, b = features(200, 0), features(300, 1)
    x, y = a.double().numpy(), b.double().numpy()
    s, t = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_fewer_images_than_features():
    a, b = features(4, 0, dim=9), features(6, 1, dim=9)
    s, t = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    expected = float((a.double().mean(0) - b.double().mean(0)).square().sum()) + np.trace(s + t)
    values = np.linalg.eigvals(s @ t)  # of a product of two that are not negative: neither are these
    expected -= 2 * np.sqrt(values.real.clip(min=0)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_frechet_of_known_normals():
    """Between N(0, I) and N(m, 4 I) in D dimensions it is |m|^2 + D; what finite sets add is small here."""
    a = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0))
    b = 2 * torch.randn(40_000, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([1.0, 0.0, 2.0])
    assert frechet_distance(a, b) == pytest.approx(5 + 3, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_sum_over_pairs(monkeypatch):
    monkeypatch.setattr(feature_distances, "_ROWS_AT_ONCE", 7)
    a, b = features(20, 0), features(13, 1)

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x.double() @ y.double() / 5 + 1) ** 3)

    within = [
        np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]  # fmt: skip
    expected = within[0] + within[1] - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_unbiased():
    sets = torch.randn(400, 2, 8, 3, generator=torch.Generator().manual_seed(0))
    values = np.array([kernel_distance(a, b) for a, b in sets])
    assert values.min() < 0
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    shifted = np.array([kernel_distance(a, b + 1) for a, b in sets])
    assert shifted.mean() > 10 * values.std() / len(values) ** 0.5


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_one_image_is_no_set(distance):
    with pytest.raises(ValueError, match="takes at least 2 images of each, got 1"):
        distance(torch.zeros(3, 2), torch.zeros(1, 2))
