"""Names beside a grid: each at its row or column, and nothing of the grid is lost."""

import numpy as np
import torch

from attelbo.training.media import GAP, GAP_COLOR, image_grid
from attelbo.training.names import named

GRID = image_grid(torch.rand(6, 1, 64, 64), columns=3)


def written(picture: np.ndarray) -> np.ndarray:
    return (picture != GAP_COLOR).any(-1)


def test_the_grid_is_kept_and_each_row_has_its_name_at_its_left():
    picture = named(GRID, ["image", "reconstruction"])
    height, width, _ = GRID.shape
    left = picture.shape[1] - width
    assert picture.shape[0] == height
    np.testing.assert_array_equal(picture[:, left:], GRID)
    first, second = (written(picture[GAP + row * 66 : GAP + row * 66 + 64, :left]) for row in (0, 1))
    for name in (first, second):
        rows = np.flatnonzero(name.any(1))
        assert abs(rows.mean() - 32) < 6
        assert not name[:, [0, 1, -2, -1]].any()
    assert first.any(0).sum() < second.any(0).sum()


def test_columns_have_their_names_above():
    picture = named(GRID, columns=["image", "", "head 2"])
    top = picture.shape[0] - GRID.shape[0]
    np.testing.assert_array_equal(picture[top:], GRID)
    above = [written(picture[:top, GAP + column * 66 : GAP + column * 66 + 64]) for column in range(3)]
    assert [bool(part.any()) for part in above] == [True, False, True]
    assert not any(part[[0, -1]].any() for part in above)


def test_both_and_neither():
    assert (np.array(named(GRID, ["a", "b"], ["1", "2", "3"]).shape) > GRID.shape).tolist() == [True, True, False]
    np.testing.assert_array_equal(named(GRID), GRID)
