"""Every position against the formula of its paper, and with every kernel and a cache."""

import math

import pytest
import torch

from attelbo.attention import Learned, Sinusoidal


def test_sinusoidal_is_the_formula_of_the_paper() -> None:
    x = torch.zeros(1, 12, 6, dtype=torch.float64)
    added = Sinusoidal(6, 12).double().at_input(x)[0]
    for t in range(12):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert added[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert added[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)


def test_learned_is_a_vector_for_each_place() -> None:
    torch.manual_seed(0)
    position = Learned(4, 9)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(position.at_input(x, 5), x + position.table[5:8])
    assert Learned(100, 100).table.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("position", [Learned(4, 5), Sinusoidal(4, 5)])
def test_a_sequence_that_is_too_long(position) -> None:
    position.at_input(torch.zeros(1, 5, 4))
    with pytest.raises(ValueError, match="there are 5 positions, too few for a sequence of 6 tokens"):
        position.at_input(torch.zeros(1, 2, 4), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learned(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Sinusoidal(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Sinusoidal(5, 3), "dim must be even .*, got 5"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
