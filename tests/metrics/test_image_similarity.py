"""Similarity of images on known answers and by its formulas."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from attelbo.metrics import image_similarity
from attelbo.metrics.image_similarity import WEIGHTS, n_scales_of


def pair(size: int, n: int = 3, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, size, size, generator=generator)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def by_hand(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Structural similarity over all windows, at the border of the mirrored image, and its factor of contrast and
    structure over those that lie in the image (H, W)."""
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, weights, 0, mode="mirror"), weights, 1, mode="mirror")

    c1, c2, mx, my = 0.01**2, 0.03**2, mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    contrast = (2 * cov + c2) / (vx + vy + c2)
    return float(((2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast).mean()), float(contrast[5:-5, 5:-5].mean())


def test_the_same_image():
    x, _ = pair(64)
    found = image_similarity(x, x)
    assert found["psnr"].tolist() == [math.inf] * 3
    for name in ("ssim", "ms_ssim"):
        assert found[name].tolist() == pytest.approx([1] * 3)


def test_psnr_is_by_image():
    x = torch.zeros(2, 1, 4, 4)
    y = x.clone()
    y[0] += 0.1
    y[1, 0, 0, 0] = 1.0
    assert image_similarity(x, y)["psnr"].tolist() == pytest.approx([20, 10 * math.log10(16)], rel=1e-5)


def test_structural_similarity_by_hand():
    x, y = pair(32)
    found = image_similarity(x, y)
    for i in range(3):
        a, b = x[i, 0].double().numpy(), y[i, 0].double().numpy()
        assert float(found["ssim"][i]) == pytest.approx(by_hand(a, b)[0], abs=1e-4)
        halved = [image.reshape(16, 2, 16, 2).mean((1, 3)) for image in (a, b)]
        w = np.array(WEIGHTS[:2]) / sum(WEIGHTS[:2])
        expected = by_hand(a, b)[1] ** w[0] * by_hand(*halved)[0] ** w[1]
        assert float(found["ms_ssim"][i]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "names"),
    [(8, {"psnr"}), (11, {"psnr", "ssim"}), (21, {"psnr", "ssim"}), (22, {"psnr", "ssim", "ms_ssim"})],
)
def test_small_images_have_what_there_is_room_for(size, names):
    assert set(image_similarity(*pair(size, channels=3))) == names


@pytest.mark.parametrize(("size", "scales"), [(28, 2), (44, 3), (64, 3), (98, 3), (99, 4), (176, 5), (500, 5)])
def test_as_many_scales_as_fit(size, scales):
    assert n_scales_of(size) == scales
    if size < 200:
        assert image_similarity(*pair(size, n=1))["ms_ssim"].isfinite().all()


def test_less_similar_is_less():
    x, y = pair(64)
    near, far = image_similarity(x, 0.9 * x + 0.1 * y), image_similarity(x, y)
    for name, values in near.items():
        assert (values > far[name]).all(), name
