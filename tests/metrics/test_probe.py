"""Probes on known answers."""

import pytest
import torch

from attelbo.metrics.probe import DRAWS, probe_accuracy


def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, N(0, 1) and N(3, 1) in the first of two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    return torch.randn(n, 2, generator=generator) + 3.0 * y.unsqueeze(1) * torch.tensor([1.0, 0.0]), y


def test_codes_that_are_the_labels_tell_all_and_constant_codes_the_most_frequent_class():
    y = torch.arange(300) % 3
    for n_labels in (100, None):
        assert all(a == (1, 0) for a in probe_accuracy(y.unsqueeze(1), y, y.unsqueeze(1), y, n_labels, 0).values())
    y = torch.tensor([0, 0, 0, 1] * 50)
    constant = torch.zeros(200, 3)
    found = probe_accuracy(constant, y, constant, y, None, 0)["linear"]
    assert found.value == 0.75
    assert found.std_error == pytest.approx((0.75 * 0.25 / 200) ** 0.5)


def test_a_linear_probe_reaches_the_best_accuracy_that_there_is():
    found = probe_accuracy(*rows(4000, 0), *rows(4000, 1), None, 0)
    best = torch.special.ndtr(torch.tensor(1.5)).item()
    assert found["linear"].value == pytest.approx(best, abs=4 * found["linear"].std_error)
    assert best - 0.03 < found["knn"].value < best


def test_few_labels_are_drawn_anew_and_tell_less():
    found = {n: probe_accuracy(*rows(1000, 0), *rows(2000, 1), n, 3)["knn"] for n in (4, 500)}
    assert found[4].value < found[500].value
    # As the draws differ, the error is more than that of the rows.
    alone = (found[4].value * (1 - found[4].value) / 2000) ** 0.5
    assert found[4].std_error > alone
    assert DRAWS > 1
    assert probe_accuracy(*rows(1000, 0), *rows(2000, 1), 4, 3)["knn"] == found[4]


def test_one_class_alone_is_what_is_answered_and_more_labels_than_rows_are_refused():
    x, y = rows(50, 0)
    found = probe_accuracy(x, torch.ones_like(y), x, y, None, 0)
    assert found["linear"].value == pytest.approx(float(y.double().mean()))
    with pytest.raises(ValueError, match=r"^n_labels must be in 1..50, got 51"):
        probe_accuracy(x, y, x, y, 51, 0)
