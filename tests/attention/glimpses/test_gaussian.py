"""Gaussian windows against filters that are built number by number, in loops, as the paper writes them."""

import math

import pytest
import torch

from attelbo.attention import GaussianWindow, gaussian_window

SIZE = H, W = 7, 9
N = 3


@pytest.fixture
def parameters():
    """Some of them outside of the image, narrow and wide."""
    return torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def filters_in_loops(parameters: list[float], n: int) -> tuple[list[list[float]], list[list[float]], float]:
    """Eq. 19-26, one row, positions counted from 1."""
    gx, gy, log_variance, log_stride, log_gamma = parameters
    variance, gamma = math.exp(log_variance), math.exp(log_gamma)
    center_x, center_y = (W + 1) / 2 * (gx + 1), (H + 1) / 2 * (gy + 1)
    stride = (max(W, H) - 1) / (n - 1) * math.exp(log_stride)
    banks = []
    for center, length in ((center_x, W), (center_y, H)):
        bank = []
        for i in range(1, n + 1):
            mean = center + (i - n / 2 - 0.5) * stride
            values = [math.exp(-((a - mean) ** 2) / (2 * variance)) for a in range(1, length + 1)]
            bank.append([value / sum(values) for value in values])
        banks.append(bank)
    return banks[0], banks[1], gamma


def test_read_and_write_equal_sums_over_pixels(parameters):
    images = torch.randn(5, 2, H, W, dtype=torch.float64)
    patches = torch.randn(5, 2, N, N, dtype=torch.float64)
    window = gaussian_window(parameters, N, SIZE)
    read, written = window.read(images), window.write(patches)
    for row in range(5):
        fx, fy, gamma = filters_in_loops(parameters[row].tolist(), N)
        torch.testing.assert_close(window.columns[row].tolist(), fx)
        torch.testing.assert_close(window.rows[row].tolist(), fy)
        for c in range(2):
            x, w = images[row, c], patches[row, c]
            for i in range(N):
                for j in range(N):
                    seen = sum(fy[i][b] * float(x[b, a]) * fx[j][a] for b in range(H) for a in range(W))
                    assert float(read[row, c, i, j]) == pytest.approx(gamma * seen)
            for b in range(H):
                for a in range(W):
                    painted = sum(fy[i][b] * float(w[i, j]) * fx[j][a] for i in range(N) for j in range(N))
                    assert float(written[row, c, b, a]) == pytest.approx(painted / gamma)


def test_a_sharp_window_on_all_pixels_is_the_identity():
    images = torch.randn(4, 3, 6, 6)
    sharp = torch.zeros(4, 5)
    sharp[:, 2] = -8.0  # log variance
    sharp[:, 4] = torch.tensor([0.0, 0.5, -1.0, 2.0])  # intensities, which cancel
    window = gaussian_window(sharp, 6, (6, 6))
    torch.testing.assert_close(window.write(window.read(images)), images)
    torch.testing.assert_close(window.box, torch.tensor([[0.0, 0.0, 5.0, 5.0]]).expand(4, 4))


def test_what_is_written_is_read_where_it_was_written():
    """A sharp window whose filters stand on pixels of their own."""
    sharp = torch.tensor([[0.1, -0.2, -8.0, -1.2, 0.7]])
    window = gaussian_window(sharp, 3, (28, 28))
    patch = torch.randn(1, 1, 3, 3)
    spread = GaussianWindow(*window[:2], torch.ones(1), *window[3:])
    canvas = spread.write(patch)
    top, left, bottom, right = window.box[0].tolist()
    inside = torch.zeros(28, 28)
    inside[round(top) - 1 : round(bottom) + 2, round(left) - 1 : round(right) + 2] = 1
    torch.testing.assert_close(canvas * inside, canvas)
    assert canvas.abs().sum() > 0


def test_far_outside_and_of_any_width_there_are_finite_numbers_and_gradients():
    extreme = torch.tensor([[50.0, -50.0, -100.0, 100.0, 100.0], [0.0, 0.0, 100.0, -100.0, -100.0]], requires_grad=True)
    for n in (1, 4):
        window = gaussian_window(extreme, n, SIZE)
        out = window.read(torch.ones(2, 1, H, W)).log().sum() + window.write(torch.ones(2, 1, n, n)).sum().log()
        assert out.isfinite()
        (gradient,) = torch.autograd.grad(out, extreme)
        assert gradient.isfinite().all()


def test_the_gradient_is_that_of_finite_differences(parameters):
    images = torch.rand(5, 1, H, W, dtype=torch.float64)
    patches = torch.rand(5, 1, N, N, dtype=torch.float64)

    def both(p):
        window = gaussian_window(p, N, SIZE)
        return window.read(images), window.write(patches)

    assert torch.autograd.gradcheck(both, parameters.requires_grad_())
