"""Checkpoint files that are either whole or absent, and hold nothing but tensors and plain containers."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from attelbo.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames; reads with ``weights_only=True``.

    Lightning's own is atomic only where the temporary folder lies on the same file system, and copies
    the whole file through memory.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location, weights_only=True)
