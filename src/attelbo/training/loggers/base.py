"""What every logger knows about its run, and the interface of those that show more than numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from attelbo.training.media import Still


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What every logger may know about its run."""

    directory: Path
    """Loggers write nothing outside it."""
    name: str
    """The run's name on a dashboard."""
    run_id: str
    """Stays the same when the run is resumed."""
    group: str
    """Runs that are shown together: the sweep's id."""
    job_type: str
    """"train", "evaluate" or "reproduce"."""
    tags: tuple[str, ...]
    """Short labels, such as the git version."""
    config: Mapping[str, Any]
    """The resolved configuration, plain containers."""
    part: str = ""
    """The part of the run that is logged, such as "evaluate-test"; empty for the training."""


class Board(ABC):
    """A logger that is a dashboard: it shows works beside numbers, and knows how a run ended."""

    @abstractmethod
    def show(self, key: str, work: Still, step: int) -> None:
        """Show a picture or a text."""

    @abstractmethod
    def conclude(self, numbers: Mapping[str, Any]) -> None:
        """Record the final numbers of the run, by which runs are compared.

        Args:
            numbers: name -> number or word.
        """

    @abstractmethod
    def finish(self, exit_code: int, state: str) -> None:
        """Close the run, which has ended; using the logger again would start it anew.

        Args:
            exit_code: of the process.
            state: done, interrupted, pruned, failed.
        """


def on_rank_zero() -> bool:
    """Whether this process is the one that logs."""
    return getattr(rank_zero_only, "rank", 0) == 0
