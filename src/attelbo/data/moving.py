"""Data that are not where they were looked for: where they may be, and where those of a finished run are now."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attelbo.errors import DataError, MissingDataError, did_you_mean


def absent(path: Path, what: str, key: str = "data.source.path") -> MissingDataError:
    """The error for a file or folder of the user's own that is not there.

    Args:
        path: where it was looked for.
        what: it is, such as "file".
        key: that names it.
    """
    near = _near(path)
    remedy = f"{key} says which, from paths.data_dir or absolutely{did_you_mean(near and str(near))}"
    return MissingDataError(f"{path.absolute()}: no such {what}", remedy)


def _near(path: Path) -> Path | None:
    """What the end of a path names from the working folder, the longest end first; None: nothing."""
    return next((end.absolute() for end in _ends(path.absolute()) if end.exists()), None)


def moved(data: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """The configuration of the data of a run, whose files are in this folder now, or where they were if it is None.

    A file that was named absolutely is the one in the folder whose path ends as its did, in as many names as possible;
    where the folder has none, it is still where it was.
    """
    if data_dir is None:
        return dict(data)
    return {**_found(data, Path(data_dir)), "root": data_dir}


def _found(node: Any, folder: Path) -> Any:
    if isinstance(node, Mapping):
        return {key: _found(value, folder) for key, value in node.items()}
    if not isinstance(node, str) or not Path(node).is_absolute():
        return node
    return next((str(end) for end in _ends(Path(node)) if (folder / end).exists()), node)


def _ends(path: Path) -> Iterator[Path]:
    """What is left of an absolute path without its first names, the longest first."""
    return (Path(*path.parts[first:]) for first in range(1, len(path.parts)))


@contextmanager
def where_now() -> Iterator[None]:
    """Around reading the data of a finished run, whose commands take ``data_dir``.

    Raises:
        DataError: they are not where they were; the remedy is that key.
    """
    try:
        yield
    except MissingDataError as error:
        raise DataError(f"{error.what}; data_dir=... is the folder that has it now") from error
