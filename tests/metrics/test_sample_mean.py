"""Means in which every sample counts once, whatever the batches."""

import pytest
import torch

from attelbo.metrics import SampleMean


def test_every_sample_counts_once() -> None:
    torch.manual_seed(0)
    elbo, kl = torch.randn(2, 10, dtype=torch.float64)
    metric = SampleMean(("elbo", "kl"))
    for rows in torch.arange(10).split([4, 4, 2]):
        metric.update({"kl": kl[rows], "elbo": elbo[rows]})
    values = metric.compute()
    assert list(values) == ["elbo", "kl"]
    # The mean of the three batches' means is another number.
    assert float(values["elbo"]) == pytest.approx(float(elbo.mean()), rel=1e-6)
    assert float(values["kl"]) == pytest.approx(float(kl.mean()), rel=1e-6)


def test_many_batches_do_not_drift() -> None:
    metric = SampleMean(("nll",))
    for _ in range(10_000):
        metric.update({"nll": torch.tensor([90.1])})
    assert float(metric.compute()["nll"]) == float(torch.tensor(90.1))


def test_more_samples_than_float32_counts() -> None:
    metric = SampleMean(("nll",))
    metric.update({"nll": torch.ones(1)})
    metric.n = metric.n + 2**24  # where float32 ends: one more would be none
    metric.update({"nll": torch.ones(1)})
    assert int(metric.n) == 2**24 + 2


@pytest.mark.parametrize("take_in", ["update", "forward"])
def test_keeps_no_graph(take_in: str) -> None:
    """Of ``update`` torchmetrics itself takes care, not of ``forward``."""
    metric = SampleMean(("loss",))
    getattr(metric, take_in)({"loss": torch.ones(2, requires_grad=True) * 2})
    assert not metric.total.requires_grad


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^values must be those of elbo, got elbo, extra"):
        SampleMean(("elbo",)).update({"elbo": torch.ones(1), "extra": torch.ones(1)})
