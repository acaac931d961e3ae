"""Where the windows of DRAW begin, looked at through what they see and paint before anything is learned."""

import pytest
import torch

from attelbo.networks.glimpses import WindowReader, WindowWriter

STATE = 6


def spots(n: int, side: int) -> list[int]:
    """The middle of each of n equal cells, pixels counted from 0."""
    return [round((i + 0.5) * side / n - 0.5) for i in range(n)]


@pytest.mark.parametrize(("n", "side"), [(1, 9), (2, 30), (3, 27), (5, 45)])
def test_at_first_each_filter_sees_the_middle_of_its_cell(n, side) -> None:
    reader = WindowReader(1, (side, side), n, STATE)
    for i, row in enumerate(spots(n, side)):
        for j, column in enumerate(spots(n, side)):
            image = torch.zeros(1, 1, side, side)
            image[..., row - 4 : row + 5, column - 4 : column + 5] = 1  # all that a standard deviation of 1 reaches
            seen, _ = reader(image, torch.zeros(1, STATE))
            assert seen.view(n, n)[i, j] > 0.99
            assert seen.sum() < 1.01  # and no other does


@pytest.mark.parametrize(("n", "side"), [(1, 9), (3, 27), (5, 45)])
def test_at_first_a_number_is_painted_as_itself(n, side) -> None:
    writer = WindowWriter(1, (side, side), n, STATE)
    torch.nn.init.normal_(writer.paint.bias)
    canvas, _ = writer(torch.zeros(1, STATE))
    rows = torch.tensor(spots(n, side))
    painted = canvas[0, 0][rows][:, rows]
    torch.testing.assert_close(painted, writer.paint.bias.view(n, n), rtol=0.02, atol=0)


def test_a_two_by_two_window_sees_a_digit_that_leaves_the_corners_blank() -> None:
    image = torch.zeros(1, 1, 28, 28)
    image[..., 4:24, 4:24] = 1  # where MNIST's digits are
    seen, _ = WindowReader(1, (28, 28), 2, STATE)(image, torch.zeros(1, STATE))
    assert (seen > 0.9).all()
