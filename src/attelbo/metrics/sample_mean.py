"""Means over samples, exact whatever the sizes of the batches.

Shapes: B batch.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class SampleMean(Metric):
    """The means of several per-sample values at once, each sample with the same weight.

    Replaces one ``torchmetrics.MeanMetric`` for each value, which check for NaN at every update, a synchronization with
    the device, and accumulate in float32.

    Args:
        names: of the values, in the order of the report.
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
            ValueError: other names than those of the constructor.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"values must be those of {', '.join(self.names)}, got {', '.join(values)}")
        stacked = torch.stack([values[name] for name in self.names]).double()  # (values, B)
        # Not in place, here and in the other metrics: reset() in Trainer.validate() leaves inference tensors, which
        # Trainer.fit(), which validates outside of inference mode, could not update in place.
        self.n = self.n + stacked.shape[1]
        self.total = self.total + stacked.sum(1)

    def compute(self) -> dict[str, Tensor]:
        return dict(zip(self.names, (self.total / self.n).float().unbind(), strict=True))
