"""Spatial transformers against bilinear sampling that is written out, pixel by pixel."""

import math

import pytest
import torch

from attelbo.attention.glimpses import box_of, cut_patch, paste_patch

SIZE = H, W = 6, 9


def sampled(image, row: float, column: float) -> float:
    """Bilinear interpolation between the four pixels around a point; zeros outside."""
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                total += float(image[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def pixel(position: float, length: int) -> float:
    """-1 .. 1 as a pixel, of which the first is centered at 0."""
    return (position + 1) * length / 2 - 0.5


def relative(index: int, length: int) -> float:
    return (2 * index + 1) / length - 1


@pytest.fixture
def places():
    """Inside, over the edge, and wholly outside."""
    return torch.tensor([[0.5, 0.1, -0.2], [0.3, 0.9, 0.8], [0.2, 3.0, 0.0]], dtype=torch.float64)


def test_a_cut_patch_is_sampled_from_the_image(places):
    images = torch.randn(3, 2, H, W, dtype=torch.float64)
    patches = cut_patch(images, places, 4)
    for row, (size, x, y) in enumerate(places.tolist()):
        for c in range(2):
            for i in range(4):
                for j in range(4):
                    at = pixel(size * relative(i, 4) + y, H), pixel(size * relative(j, 4) + x, W)
                    assert float(patches[row, c, i, j]) == pytest.approx(sampled(images[row, c], *at), abs=1e-6)


def test_a_pasted_patch_is_sampled_from_the_patch(places):
    patches = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    images = paste_patch(patches, places, SIZE)
    for row, (size, x, y) in enumerate(places.tolist()):
        for i in range(H):
            for j in range(W):
                at = pixel((relative(i, H) - y) / size, 4), pixel((relative(j, W) - x) / size, 4)
                assert float(images[row, 0, i, j]) == pytest.approx(sampled(patches[row, 0], *at), abs=1e-5)
    assert images[2].abs().sum() == 0


def test_pixels_come_back_from_where_they_were_pasted():
    """A patch of 3 x 3 on pixels 2..4 of 9: a third of the canvas, around its pixel 3."""
    patches, place = torch.randn(1, 1, 3, 3), torch.tensor([[1 / 3, relative(3, 9), relative(5, 9)]])
    canvas = paste_patch(patches, place, (9, 9))
    torch.testing.assert_close(canvas[:, :, 4:7, 2:5], patches)
    torch.testing.assert_close(canvas.sum(), patches.sum())
    torch.testing.assert_close(cut_patch(canvas, place, 3), patches)
    torch.testing.assert_close(box_of(place, (9, 9)), torch.tensor([[3.5, 1.5, 6.5, 4.5]]))


def test_the_gradient_is_that_of_finite_differences(places):
    images = torch.rand(2, 1, H, W, dtype=torch.float64, requires_grad=True)
    patches = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    inside = (places[:2] + 0.0137).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, p: cut_patch(i, p, 3), (images, inside), atol=1e-4)
    assert torch.autograd.gradcheck(lambda i, p: paste_patch(i, p, SIZE), (patches, inside), atol=1e-4)
