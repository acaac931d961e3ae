"""The benchmark of attention: its contestants agree, memory grows as it says, its page is made of what was measured."""

import pytest
import torch
from benchmarks import attention
from benchmarks.attention import MASKS, contestants, inputs, lap, markdown, measure, profiled

from attelbo.attention import KERNELS, Causal, Mechanism, ScaledDot, Sigmoid


@pytest.mark.parametrize("mask", MASKS)
def test_contestants_compute_the_same(mask):
    _, heads, _ = inputs(160)
    found = contestants(MASKS[mask], 160)
    expected = found.pop("hand-written")(*heads)
    found.pop("linear", None)
    assert set(found) == {"auto", "eager", "sdpa", "chunked"}
    for attend in found.values():
        torch.testing.assert_close(attend(*heads), expected, rtol=1e-4, atol=1e-5)


def growth(attend) -> float:
    """How much more memory twice as many tokens take."""
    return profiled(attend, 1024)[0] / profiled(attend, 512)[0]


def test_memory_grows_with_the_length_and_by_hand_with_its_square():
    by_hand = contestants(None, 1024)["hand-written"]
    assert growth(by_hand) > 3.5
    for mask in MASKS.values():
        assert growth(contestants(mask, 1024)["chunked"]) < 2.2
    mechanism = Mechanism(ScaledDot(64), Sigmoid())
    assert growth(lambda q, k, v: KERNELS["eager"](q, k, v, mechanism, mask=Causal())) > 3.5
    assert growth(lambda q, k, v: KERNELS["chunked"](q, k, v, mechanism, mask=Causal())) < 2.2


def test_peak_memory_is_that_of_the_tensors():
    n = 4 * 8 * 100 * 64  # bytes of an output
    assert profiled(lambda q, k, v: q + k + v, 100)[0] >= n
    held = profiled(lambda q, k, v: (q.exp() * k).exp() + v, 100)[0]
    assert held >= 4 * n


def test_the_page_is_made_of_what_was_measured():
    rows = [measure(mask, 32, 1) for mask in MASKS]
    rows[0]["laps"] = {"hand-written": [0.004], "auto": [0.002], "sdpa": [0.001], "chunked": [0.003]}
    rows[0]["peak_bytes"] = {"hand-written": 9_000_000, "auto": 1_000_000, "sdpa": 1_000_000, "chunked": 2_000_000}
    page = markdown(
        {
            "date": "2026-01-02 03:04",
            "hardware": {"cpu": "a processor"},
            "versions": {"torch": "2"},
            "load_average": {"before": (0.5, 0, 0), "after": (0.7, 0, 0)},
            "rows": rows,
        }
    )
    assert "| 32 | 1 | 4.0 | 2.0 | 1.0 | 3.0 | 2.00 (sdpa) | 2.0 |" in page
    assert "| 32 | 9 | 1 | 1 | 2 |" in page
    assert page.count("## ") == 2 * len(MASKS)
    assert lap(lambda q, k, v: q + k + v, 8, 1) > 0
    assert attention.LENGTHS[-1] == 16384
