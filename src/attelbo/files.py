"""Files that are either whole or not there, whatever kills the process that writes them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write what shall stand at ``path``: beside it, flushed to the disk at the end, then renamed.

    A reader sees the old file or the new one, never half of either; if the block raises, the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace ``path`` by ``content``, wholly or not at all. Text is UTF-8."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def give_second_name(path: Path, name: Path) -> None:
    """Let the file at ``path`` stand at ``name`` too, in place of what stood there; as a copy where the file system
    knows no second names. Files that are replaced and never written to, as all of ours, stay apart from then on."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(name)
    finally:
        temporary.unlink(missing_ok=True)
