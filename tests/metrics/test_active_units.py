"""Active units on known answers, and merging that is exact."""

import numpy as np
import pytest
import torch

from attelbo.metrics import ActiveUnits


def test_known_answers() -> None:
    torch.manual_seed(0)
    informative = torch.randn(500)
    means = torch.stack(
        [
            informative,  # perfect
            informative,  # a duplicate is active too: this metric looks at each dimension alone
            torch.full((500,), 7.3),  # constant, though far from zero
            torch.zeros(500),
            0.05 * torch.sign(torch.arange(500) - 249.5),  # variance 0.0025
            0.2 * torch.sign(torch.arange(500) - 249.5),  # variance 0.04
        ],
        dim=1,
    )
    metric = ActiveUnits((6,))
    metric.update(means)
    assert float(metric.compute()) == 3
    np.testing.assert_allclose(metric.variance(), means.double().var(0, correction=0), rtol=1e-9, atol=1e-14)
    assert metric.variance()[4:].tolist() == pytest.approx([0.0025, 0.04], rel=1e-6)


def test_threshold_is_on_the_variance_not_on_the_deviation() -> None:
    means = torch.tensor([[-0.05], [0.05]])
    for threshold, active in ((0.0024, 1), (0.0026, 0)):
        metric = ActiveUnits((1,), threshold=threshold)
        metric.update(means)
        assert int(metric.compute()) == active
    constant = ActiveUnits((1,), threshold=0.0)
    constant.update(torch.ones(2, 1))
    assert int(constant.compute()) == 0


@pytest.mark.parametrize("sizes", [[300], [1] * 300, [100, 100, 100], [299, 1], [7, 200, 93]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    torch.manual_seed(0)
    # A small spread around a large mean, where sums of squares in float32 would lose everything.
    means = 1e3 + 0.1 * torch.randn(300, 4, dtype=torch.float64)
    metric = ActiveUnits((4,), threshold=0.001)
    for batch in means.split(sizes):
        metric.update(batch)
    np.testing.assert_allclose(metric.variance(), means.numpy().var(0), rtol=1e-6)
    assert int(metric.compute()) == 4


def test_two_processes_merge_to_the_whole() -> None:
    torch.manual_seed(0)
    means = torch.randn(50, 3)
    parts, whole = [ActiveUnits((3,)), ActiveUnits((3,))], ActiveUnits((3,))
    whole.update(means)
    for part, share in zip(parts, means.split([40, 10]), strict=True):
        part.update(share)
    # What torchmetrics does over processes: each state is gathered and reduced, here by its own reduction.
    for state, reduce in parts[0]._reductions.items():
        assert callable(reduce)
        setattr(parts[0], state, reduce(torch.stack([getattr(part, state) for part in parts])))
    torch.testing.assert_close(parts[0].variance(), whole.variance())
    assert parts[0].compute() == whole.compute()


def test_latents_of_any_shape_and_a_module_in_half_precision() -> None:
    torch.manual_seed(0)
    means = torch.randn(20, 2, 3)
    metric = ActiveUnits((2, 3))
    module = torch.nn.ModuleDict({"metric": metric}).half()
    metric.update(means)
    assert metric.total.dtype == torch.float64
    assert int(metric.compute()) == 6
    assert len(list(module.parameters())) == 0


def test_reset_forgets() -> None:
    metric = ActiveUnits((1,))
    metric.update(torch.tensor([[0.0], [1.0]]))
    metric.reset()
    metric.update(torch.tensor([[1.0], [1.0]]))
    assert int(metric.compute()) == 0


def test_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^threshold must not be negative, got -1"):
        ActiveUnits((1,), threshold=-1)
