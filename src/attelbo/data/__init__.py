"""Data modules: specifications known before files are read, resident tensors, blocks of row indices.

Data modules are loaded on first use, since they need Lightning.
"""

import importlib
from typing import TYPE_CHECKING, Any

from attelbo.data.batch import BOS, CONTEXT, EOS, IGNORE, PAD, TARGET, UNK, Batch, Block, DataKind, DataSpec, Split

if TYPE_CHECKING:
    from attelbo.data.arrays import ArrayDataModule
    from attelbo.data.image import ImageDataModule
    from attelbo.data.module import ResidentDataModule
    from attelbo.data.pixels import PixelDataModule
    from attelbo.data.tasks import FunctionDataModule, SetDataModule, TaskDataModule
    from attelbo.data.text.classification import TextClassificationDataModule
    from attelbo.data.text.language import LanguageDataModule
    from attelbo.data.text.parallel import ParallelDataModule
    from attelbo.data.text.sentences import SentenceDataModule

__all__ = [
    "BOS",
    "CONTEXT",
    "EOS",
    "IGNORE",
    "PAD",
    "TARGET",
    "UNK",
    "ArrayDataModule",
    "Batch",
    "Block",
    "DataKind",
    "DataSpec",
    "FunctionDataModule",
    "ImageDataModule",
    "LanguageDataModule",
    "ParallelDataModule",
    "PixelDataModule",
    "ResidentDataModule",
    "SentenceDataModule",
    "SetDataModule",
    "Split",
    "TaskDataModule",
    "TextClassificationDataModule",
]

_MODULES = {
    "ArrayDataModule": "attelbo.data.arrays",
    "FunctionDataModule": "attelbo.data.tasks",
    "ImageDataModule": "attelbo.data.image",
    "LanguageDataModule": "attelbo.data.text.language",
    "ParallelDataModule": "attelbo.data.text.parallel",
    "PixelDataModule": "attelbo.data.pixels",
    "ResidentDataModule": "attelbo.data.module",
    "SentenceDataModule": "attelbo.data.text.sentences",
    "SetDataModule": "attelbo.data.tasks",
    "TaskDataModule": "attelbo.data.tasks",
    "TextClassificationDataModule": "attelbo.data.text.classification",
}
"""Data module -> where it is."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
