"""What every source of texts has in common."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

Texts = TypeVar("Texts", covariant=True)
"""What a source reads: the texts of three splits."""


class Source(ABC, Generic[Texts]):
    """Where texts come from."""

    def prepare(self, root: Path) -> None:
        """Download what is missing from ``root`` and can be downloaded.

        Raises:
            DataError: if that fails.
        """

    @abstractmethod
    def load(self, root: Path) -> Texts:
        """Read the texts.

        Raises:
            DataError: a file is missing, damaged or empty, or two of them do not match.
        """
