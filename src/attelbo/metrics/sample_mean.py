"""Means over samples, exact whatever the sizes of the batches.

Shapes: B batch.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class SampleMean(Metric):
    """The means of several per-sample values at once, each sample with the same weight.

    In place of one ``torchmetrics.MeanMetric`` for each value: those look for NaN at every update, which
    waits for the device, and add up in float32.

    Args:
        names: of the values, in the order in which they are to be reported.
    """

    full_state_update = False
    n: Tensor
    total: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("n", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Take in a batch: for each name, its values (B,).

        Raises:
            ValueError: other names than those announced.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"values must be those of {', '.join(self.names)}, got {', '.join(values)}")
        stacked = torch.stack([values[name].detach() for name in self.names]).double()  # (values, B)
        # Not in place, here and in the other metrics: reset() in Trainer.validate() leaves tensors of inference mode,
        # which Trainer.fit(), that validates without it, could not add to.
        self.n = self.n + stacked.shape[1]
        self.total = self.total + stacked.sum(1)

    def compute(self) -> dict[str, Tensor]:
        return dict(zip(self.names, (self.total / self.n).float().unbind(), strict=True))
