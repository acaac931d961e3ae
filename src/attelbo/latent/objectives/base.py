"""What an objective is: evidence terms -> the loss to minimize.

Shapes: as in ``attelbo.latent.evidence``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from attelbo.latent.evidence import Evidence


class Objective(nn.Module, ABC):
    """Evidence -> scalar loss: the mean over the batch, in nats."""

    n_samples: int
    """K, samples of z drawn for each x in training and validation."""
    needs_log_weights: ClassVar[bool] = False
    """Whether ``Evidence.log_weights`` must be there."""

    def at_step(self, step: int, total_steps: int) -> None:
        """Called before optimizer step ``step`` of ``total_steps``: schedules set their weights here.

        A weight that changes lives in a buffer and is written in place, so that a captured or
        compiled step reads the new value.
        """

    @abstractmethod
    def forward(self, evidence: Evidence) -> Tensor: ...


def check_n_samples(n_samples: int) -> None:
    """Raise ValueError unless at least one sample of z is drawn."""
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
