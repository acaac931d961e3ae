"""Files that are either whole or not there, whatever kills the process that writes them."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace ``path`` by ``content``: written beside it, flushed to the disk, then renamed.

    A reader sees the old file or the new one, never half of either. Text is UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
