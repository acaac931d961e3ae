"""The means of a training's terms: over a block for the log, over an epoch exactly.

Values stay on the device as tensors. A line of the log is made of a copy that arrives while the device computes the
next block, so that it waits for nobody.

Shapes: S optimizer steps in a block, T terms of the loss.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from attelbo.training.arriving import Arriving


def is_due(step: int, taken: int, interval: int) -> bool:
    """Whether the last ``taken`` of so many steps have reached a multiple of the interval."""
    return step // interval > (step - taken) // interval


class TermMeans:
    """Takes the terms of every block.

    Args:
        log_every_n_steps: optimizer steps between two lines; at most one is written for a block, with its means.
    """

    def __init__(self, log_every_n_steps: int) -> None:
        self.log_every_n_steps = log_every_n_steps
        self.names: tuple[str, ...] = ()
        """Of the terms, known after the first block."""
        self.block = torch.empty(0)
        """The terms at each step of the last block, (S, T), on the device."""
        self._sum: Tensor | None = None
        self._rows = 0
        self._line: tuple[int, Arriving] | None = None
        """A step and the means that are to be logged there, (T,)."""

    def add(
        self, names: tuple[str, ...], values: Tensor, sizes: Sequence[int], step: int, loggers: Sequence[Logger]
    ) -> None:
        """A block has been trained on.

        Args:
            names: of the terms.
            values: of each step, (S, T), on the device.
            sizes: rows of each minibatch, (S,).
            step: steps so far, these among them.
            loggers: get the line of an earlier block, and this block's at once where that takes no waiting.
        """
        self.names, self.block = names, values
        # Only the last minibatch of an epoch may be shorter; copying a tensor of sizes to a GPU would synchronize.
        weighted = values.sum(0) * sizes[0] + values[-1] * (sizes[-1] - sizes[0])  # (T,)
        # The sum may come from a checkpoint, which is loaded on the CPU.
        self._sum = weighted if self._sum is None else self._sum.to(weighted.device) + weighted
        self._rows += sum(sizes)
        self.write(loggers)
        if is_due(step, len(sizes), self.log_every_n_steps):
            means = Arriving(values.mean(0))
            self._line = step, means
            if not means.is_under_way:
                self.write(loggers)

    def write(self, loggers: Sequence[Logger]) -> None:
        """Log what is still to be logged."""
        line, self._line = self._line, None
        if line is not None:
            step, means = line
            metrics = {f"train/{name}": value for name, value in zip(self.names, means.read().tolist(), strict=True)}
            for logger in loggers:
                logger.log_metrics(metrics, step)

    def latest(self) -> dict[str, Tensor]:
        """The means over the last block, as tensors on the device."""
        return dict(zip(self.names, self.block.mean(0), strict=True)) if self.names else {}

    def take_epoch(self) -> Tensor | None:
        """The means over the rows since this was last asked for, (T,), on the device; None if there were none."""
        total, rows = self._sum, self._rows
        self._sum, self._rows = None, 0
        return None if total is None else total / rows

    def state_dict(self) -> dict[str, Any]:
        return {"terms": list(self.names), "epoch_sum": self._sum, "epoch_rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.names = tuple(state_dict["terms"])
        self._sum, self._rows = state_dict["epoch_sum"], state_dict["epoch_rows"]
