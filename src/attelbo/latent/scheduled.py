"""A hyperparameter that follows a schedule."""

import math

import torch
from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.latent.schedules import build_schedule

_LONG = 10**9


class Scheduled(nn.Module):
    """The current value of a schedule, in a buffer that captured or compiled steps read.

    Args:
        spec: a number or a schedule (``attelbo.latent.schedules``).
        name: its name in errors.

    Raises:
        ValueError: a negative or infinite number, or a node that is no schedule; begins with ``name``.
    """

    value: Tensor
    """A scalar. In the state dict, so that a loaded model evaluates the loss it was trained on."""

    def __init__(self, spec: Spec | float, name: str) -> None:
        super().__init__()
        self.schedule = build_schedule(spec, name)
        self.register_buffer("value", torch.tensor(1.0))
        self._written = (math.nan, 0)
        self.at_step(0, 1)

    @property
    def ends(self) -> tuple[float, float]:
        """The values at the first and the last step of a very long run."""
        return self.schedule(0, _LONG), self.schedule(_LONG - 1, _LONG)

    def at_step(self, step: int, total_steps: int) -> None:
        """Move to ``step`` of ``total_steps``."""
        value = self.schedule(step, total_steps)
        if (value, self.value._version) != self._written:  # a checkpoint may have been loaded into it
            self.value.fill_(value)
            self._written = value, self.value._version
