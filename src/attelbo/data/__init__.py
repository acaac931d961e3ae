"""Data modules: specifications known before files are read, resident tensors, blocks of row indices.

``ImageDataModule`` is loaded on first use, since it needs Lightning.
"""

from typing import TYPE_CHECKING, Any

from attelbo.data.batch import Batch, Block, DataKind, DataSpec, Split

if TYPE_CHECKING:
    from attelbo.data.image import ImageDataModule

__all__ = ["Batch", "Block", "DataKind", "DataSpec", "ImageDataModule", "Split"]


def __getattr__(name: str) -> Any:
    if name == "ImageDataModule":
        from attelbo.data.image import ImageDataModule

        return ImageDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
