"""Attention weights as pictures: what is dark is what is large, and where it stands."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from attelbo.training.maps import alignment_map, attention_map, attention_overlay, shown_token
from attelbo.training.media import GAP


def cells(picture, value):
    """The centers (y, x) of the connected rectangles painted in the color of ``value``, by rows."""
    from scipy.ndimage import center_of_mass, label

    color = np.asarray(colormaps["Blues"](value))[:3] * 255
    near = (np.abs(picture - color) <= 2).all(-1)
    regions, n = label(near)
    centers = [center_of_mass(near, regions, i + 1) for i in range(n) if (regions == i + 1).sum() > 100]
    return sorted(centers)


def test_each_weight_stands_in_the_row_of_its_query_and_the_column_of_its_key():
    weights = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5], [0.0, 0.5, 0.0, 0.0]])
    picture = attention_map(weights, list("abc"), list("wxyz"), "three queries")
    (y0, x0), (y1, x1), (y2, x2) = [place for place in cells(picture, 1.0) if place[1] < 0.8 * picture.shape[1]]
    step = (x1 - x0) / 3  # columns 0, 3 and 1
    assert x2 - x0 == pytest.approx(step, abs=1)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=1)
    assert y1 - y0 == pytest.approx(step, abs=1)


def test_an_alignment_has_the_target_down_and_the_source_across():
    weights = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="labels of 1 panels, 2 queries and 3 keys for weights of shape"):
        alignment_map(weights, ["ich", "bin", "da"], ["here", "I"], "wrong way round")
    picture = alignment_map(weights, ["ich", "bin"], ["here", "I", "am"], "right")
    assert picture.dtype == np.uint8


def test_many_panels_of_one_scale():
    weights = torch.zeros(5, 3, 3)
    weights[0, 0, 0], weights[4, 2, 2] = 0.2, 0.8
    picture = attention_map(weights, list("abc"), list("abc"), "heads", panels=[f"head {i}" for i in range(5)])
    # 0.2 of a scale that ends at 0.8; the bar beside the panels has both colors too.
    assert [x for _, x in cells(picture, 0.25) if x < picture.shape[1] / 2]
    assert len([x for _, x in cells(picture, 1.0) if x < 0.85 * picture.shape[1]]) == 1


@pytest.mark.parametrize("tokens", [["$x^", "a\nb", "ಠ", "<eos>"], ["long" * 10, "", " ", "\t"]])
def test_any_text_is_a_label(tokens):
    first = attention_map(torch.eye(4), tokens, tokens, "$ and % in a title")
    np.testing.assert_array_equal(first, attention_map(torch.eye(4), tokens, tokens, "$ and % in a title"))


def test_tokens_that_cannot_be_seen_have_signs():
    assert [shown_token(token) for token in (" ", "a b", "\n", "x" * 20)] == ["␣", "a␣b", "↵", "x" * 13 + "…"]


@pytest.mark.parametrize(
    ("panels", "n_queries", "n_keys", "most"),
    [(1, 1, 1, 500), (1, 1, 300, 800), (1, 300, 300, 800), (1, 64, 2, 800), (4, 64, 64, 1400), (4, 2000, 2000, 1500)],
)
def test_sizes_stay_within_bounds(panels, n_queries, n_keys, most):
    weights = torch.full((panels, n_queries, n_keys), 1 / n_keys)
    picture = attention_map(weights, ["q"] * n_queries, ["k"] * n_keys, "size", panels=["head"] * panels)
    assert max(picture.shape) < most
    assert min(picture.shape[:2]) > 100


def test_of_more_tokens_than_pixels_the_largest_weight_is_seen():
    weights = torch.zeros(1000, 1000)
    weights[333, 777] = 1.0
    picture = attention_map(weights, ["q"] * 1000, ["k"] * 1000, "one")
    dark = (np.abs(picture - np.asarray(colormaps["Blues"](1.0))[:3] * 255) <= 2).all(-1)
    assert dark[:, : picture.shape[1] * 4 // 5].any()


@pytest.mark.parametrize(
    ("panels", "title", "shape"),
    [
        (2, "three queries", (3, 40)),
        (4, "a square", (9, 9)),
        (1, "a title that is much longer than the panel below it is wide", (2, 2)),
    ],
)
def test_nothing_is_cut_off_and_no_band_is_empty(panels, title, shape):
    queries, keys = ["q"] * shape[0], ["k"] * shape[1]
    picture = attention_map(torch.rand(panels, *shape), queries, keys, title, panels=["head"] * panels)
    blank = (picture == 255).all(-1)
    assert blank[[0, 1, -2, -1]].all()
    assert blank[:, [0, 1, -2, -1]].all()
    runs = "".join("01"[int(row)] for row in blank[:, : round(0.8 * blank.shape[1])].all(1)).split("0")
    assert max(map(len, runs)) < 45  # 0.3 inches


def test_weights_of_nothing_can_be_drawn():
    attention_map(torch.zeros(2, 2), ["a", "b"], ["a", "b"], "fully masked")
    attention_overlay(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 2, 2))


def test_an_overlay_is_gray_where_there_is_no_weight_and_warm_where_there_is():
    images = torch.full((2, 1, 64, 64), 0.5)
    weights = torch.zeros(2, 3, 4, 4)
    weights[0, 1, 2, 3] = 0.01  # a scale of its own: small weights are seen
    weights[1, 2, 0, 0] = 0.9
    picture = attention_overlay(images, weights)
    assert picture.shape == (2 * (64 + GAP) + GAP, 4 * (64 + GAP) + GAP, 3)
    colored = picture.max(-1) != picture.min(-1)
    expected = np.zeros_like(colored)
    for row, column, y, x in ((0, 2, 2, 3), (1, 3, 0, 0)):  # the first column holds the images themselves
        top, left = GAP + row * (64 + GAP) + 16 * y, GAP + column * (64 + GAP) + 16 * x
        expected[top : top + 16, left : left + 16] = True
    np.testing.assert_array_equal(colored, expected)
    red, _, blue = picture[expected].T
    assert (red > blue).all()


def test_the_cell_that_asks_is_green():
    images, weights = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 2, 2)
    weights[..., 0, 1] = 1.0
    picture = attention_overlay(images, weights, torch.tensor([[2]]))
    red, green, _ = picture[GAP + 32 + 16, 2 * GAP + 64 + 16].astype(int)  # row 1, column 0
    assert green > red
    with pytest.raises(ValueError, match="weights of 1 images, but 2 images"):
        attention_overlay(images.expand(2, -1, -1, -1), weights)
