"""What every logger knows of its run, and what those do that show more than numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from attelbo.training.media import Still


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What every logger may know about the run that it serves."""

    directory: Path
    """Nothing is written outside it."""
    name: str
    """On a dashboard."""
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
    """What of the run is logged, where it is not the training: "evaluate-test"."""


class Board(ABC):
    """A logger that is a dashboard: it shows works beside numbers, and knows how a run ended."""

    @abstractmethod
    def show(self, key: str, work: Still, step: int) -> None:
        """Show a picture or a text."""

    @abstractmethod
    def conclude(self, numbers: Mapping[str, Any]) -> None:
        """Note the final numbers of the run, those that runs are compared by.

        Args:
            numbers: name -> number or word.
        """

    @abstractmethod
    def finish(self, exit_code: int, state: str) -> None:
        """The run has ended; a later use would start it anew.

        Args:
            exit_code: of the process.
            state: done, interrupted, pruned, failed.
        """


def on_rank_zero() -> bool:
    """Whether this process is the one that logs."""
    return getattr(rank_zero_only, "rank", 0) == 0
