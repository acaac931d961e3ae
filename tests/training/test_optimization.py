"""Optimization by Lightning's way: what several processes have to agree on."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from attelbo.latent import BatchNormalizedPosterior, Normal
from attelbo.training.optimization import LightningOptimization, running_averages


class Parts(nn.Module):
    """Everything that remembers the batches that it saw; alone, or beside another process."""

    def __init__(self, other: "Parts | None" = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(3)
        self.norm_of_maps = nn.BatchNorm2d(3)
        self.posterior = BatchNormalizedPosterior((3,), 2)
        self.likelihood = Normal((3,), calibration="optimal")
        self.trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=self._mean))
        self._other = [other]

    def _mean(self, own: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "mean"
        (other,) = self._other
        return own if other is None else (own + torch.cat([each.flatten() for each in running_averages(other)])) / 2

    def see(self, x: Tensor) -> None:
        self.norm(x)
        self.norm_of_maps(x.view(*x.shape, 1, 1))
        self.posterior(x)
        self.likelihood.log_prob(torch.zeros(1, *x.shape), x)


def test_averages_over_batches_become_those_of_all_processes():
    first, second = torch.randn(2, 4, 6, 3)  # of each process 4 batches of 6 rows
    other = Parts()
    model = Parts(other)
    for batch, beside in zip(first, second, strict=True):
        model.see(batch)
        other.see(beside)
    LightningOptimization(cast(Any, model)).end_block(4)
    mean, variance, average, spread, error = torch.zeros(3), torch.ones(3), torch.zeros(2), torch.ones(2), []
    for parts in zip(first, second, strict=True):
        x = torch.stack(parts)  # (2, 6, 3)
        raw = model.posterior.means(x)
        mean = 0.9 * mean + 0.1 * x.mean((0, 1))
        variance = 0.9 * variance + 0.1 * x.var(1).mean(0)
        average = 0.9 * average + 0.1 * raw.mean((0, 1))
        spread = 0.9 * spread + 0.1 * raw.var(1, correction=0).mean(0)
        error.append(x.square().mean())  # the plain mean of so few batches
    for norm in (model.norm, model.norm_of_maps):
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    torch.testing.assert_close(model.posterior.average, average.detach())
    torch.testing.assert_close(model.posterior.variance, spread.detach())
    torch.testing.assert_close(model.likelihood._running_error, torch.stack(error).mean())
