"""Checkpoint files that are either whole or absent, and hold nothing but tensors and plain containers."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils import _pytree as pytree

from attelbo.files import link_or_copy, replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames; reads with ``weights_only=True``.

    Lightning's own is atomic only where the temporary folder lies on the same file system, and copies
    the whole file through memory.
    """

    def __init__(self) -> None:
        self._read: tuple[Path, dict[str, Any]] | None = None
        self._background = False
        self._writer: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        """The latest job in the background, which waits for those before it and raises the first error among them."""

    def hand_over(self, path: Path, content: dict[str, Any]) -> None:
        """Keep the content of a file that was read already for the next call that loads it."""
        self._read = path, content

    @contextmanager
    def in_background(self) -> Iterator[Self]:
        """A context in which calls return when the content is copied to the host; it is written while the caller goes
        on. An error there is raised by the next call, or by ``teardown``, which Lightning calls when a training ends.
        """
        self._background = True
        try:
            yield self
        finally:
            self._background = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        self.wait()  # at most one copy is held
        content = pytree.tree_map_only(Tensor, _copier(stays=not self._background), checkpoint)
        self._do(lambda: _write(Path(path), content))

    def link(self, path: Path, to: Path) -> None:
        """Make the checkpoint at ``path``, which may still be written, be the one at ``to`` as well."""
        self._do(lambda: link_or_copy(path, to))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        self.wait()
        read, self._read = self._read, None
        if read is not None and read[0] == Path(path):
            return read[1]
        return torch.load(path, map_location=map_location, weights_only=True)

    def wait(self) -> None:
        """Wait until all is written; raises what went wrong with it."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def teardown(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.shutdown()
        self.wait()

    def _do(self, job: Callable[[], None]) -> None:
        if not self._background:
            self.wait()
            job()
            return
        before = self._last

        def after() -> None:
            if before is not None:
                before.result()  # done already, by the same thread: where it has failed nothing follows
            job()

        self._writer = self._writer or ThreadPoolExecutor(1)
        self._last = self._writer.submit(after)


def checkpoint_io_of(trainer: Trainer) -> AtomicCheckpointIO:
    """The Trainer's plugin that reads and writes checkpoints."""
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    return trainer.strategy.checkpoint_io


def checkpoints_of(trainer: Trainer) -> Path:
    """The folder of a run's checkpoints."""
    return Path(trainer.default_root_dir) / "checkpoints"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        torch.save(content, file)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint of weights alone, for evaluating and sampling; no training can be resumed from it."""
    copy = _copier(stays=True)
    _write(path, {"state_dict": {name: copy(value) for name, value in weights.items()}})
    return path


def _copier(stays: bool) -> Callable[[Tensor], Tensor]:
    """A function that copies tensors to the host: slices without the rest of the tensor that they belong to, tied
    tensors only once. With ``stays``, nothing changes the tensors until all is written, and those that are on the host
    and are no slices are left uncopied."""
    copies: dict[Hashable, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if stays and tensor.device.type == "cpu" and tensor.nbytes == tensor.untyped_storage().nbytes():
            return tensor
        key = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if key not in copies:
            copies[key] = tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
        return copies[key]

    return copy
