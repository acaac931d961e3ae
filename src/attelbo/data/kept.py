"""What takes long to make out of files is made once, and kept as an array in a folder beside the data sets, so that the
next run, or job of a sweep, reads it at the speed of the disk. What was made by other code goes when it is made anew;
the folder may be deleted at any time."""

import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attelbo.files import replacing

FOLDER = ".prepared"
"""Below that of the data sets."""
LONG = 5.0
"""Seconds from which it is kept."""


def kept(root: Path, about: Sequence[Any], maker: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What ``make`` returns; what took long is kept below ``root``, if that can be written to, and read from there.

    Args:
        root: the folder of data sets.
        about: all that the array depends on, texts and what is written as it is.
        maker: a class or function that it depends on too: it is made anew when the source code of its module changes.
        make: makes it.
    """
    try:
        code = Path(inspect.getfile(maker)).read_text("utf-8")
    except (OSError, TypeError):  # a class of a notebook
        return make()
    what = _digest(f"{maker.__module__}.{maker.__qualname__}", *about)
    file = root / FOLDER / f"{what}-{_digest(code)[:16]}.npy"
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError):
        pass  # nothing is kept, or half of it
    start = time.perf_counter()
    array = make()
    if time.perf_counter() - start > LONG:
        try:
            with replacing(file) as stream:
                np.save(stream, array)
            # What other code has made of the same is of no use any more. A process that reads it has it open or in
            # memory; one of that other code makes it anew.
            for other in file.parent.glob(f"{what}-*.npy"):
                if other != file:
                    other.unlink(missing_ok=True)
        except OSError:
            pass  # a read-only folder, a full disk: made anew next time
    return array


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, str) else repr(part)
        digest.update(f"{len(text)} ".encode() + text.encode(errors="surrogatepass"))
    return digest.hexdigest()
