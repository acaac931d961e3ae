"""Checkpoint files that are either whole or absent, and hold nothing but tensors and plain containers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor
from torch.utils import _pytree as pytree

from attelbo.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames; reads with ``weights_only=True``.

    Lightning's own is atomic only where the temporary folder lies on the same file system, and copies
    the whole file through memory.
    """

    _read: tuple[Path, dict[str, Any]] | None = None

    def hand_over(self, path: Path, content: dict[str, Any]) -> None:
        """Give the content of a file that was read already to the next call that loads it."""
        self._read = path, content

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        with replacing(Path(path)) as file:
            torch.save(pytree.tree_map_only(Tensor, _by_itself, checkpoint), file)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        read, self._read = self._read, None
        if read is not None and read[0] == Path(path):
            return read[1]
        return torch.load(path, map_location=map_location, weights_only=True)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of weights alone, for evaluating and sampling; no training can be resumed from it."""
    with replacing(path) as file:
        torch.save({"state_dict": {name: _by_itself(value.detach().cpu()) for name, value in weights.items()}}, file)
    return path


def _by_itself(tensor: Tensor) -> Tensor:
    """The tensor; a copy where it is a slice of a larger one, all of which would be saved."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.itemsize else tensor
