"""Files of data sets: finding, downloading and verifying them.

Files are looked for in one folder (``paths.data_dir``). What is missing is downloaded, where that is possible, into a
temporary folder next to the rest, its MD5 sums are checked, and it is moved into place when all of it is there. A file
that exists is never overwritten and never deleted.
"""

import hashlib
import http.client
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from attelbo.errors import DataError, MissingDataError, one_line


class DataFile(NamedTuple):
    """A file below the data folder and its published MD5 sum, where there is one."""

    path: str
    md5: str | None


class Downloaded(ABC):
    """A data set that lives in files that can be downloaded."""

    embedded: ClassVar[str]
    """What can be used instead of it without any file, such as "data=digits needs no files"."""

    @abstractmethod
    def files(self) -> list[DataFile]:
        """Its files."""

    @abstractmethod
    def download(self, folder: Path, root: Path) -> None:
        """Fetch and verify everything into an empty folder, by torchvision's code; ``root`` is only read."""

    def is_there(self, root: Path, file: DataFile) -> bool:
        """Whether ``root`` has one of the files; a subclass may also take what has been unpacked from it."""
        return (root / file.path).is_file()

    def missing(self, root: Path) -> list[DataFile]:
        """The files that ``root`` lacks."""
        return [file for file in self.files() if not self.is_there(root, file)]

    def fetch_missing(self, url: str, folder: Path, root: Path) -> None:
        """Download the files that ``root`` lacks, which are published side by side below ``url``, to their places in a
        folder; see :func:`fetch`."""
        for file in self.missing(root):
            fetch(f"{url}/{Path(file.path).name}", file, folder)

    def prepare(self, root: Path) -> None:
        """Download what is missing from ``root``.

        Raises:
            DataError: if that fails.
        """
        missing = self.missing(root)
        if not missing:
            return
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
                self.download(Path(folder), root)
                _add_missing(Path(folder), root)
        # torchvision raises RuntimeError for a wrong checksum or when every mirror failed
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise self._not_found(root, missing, f"downloading failed ({one_line(error)})") from error

    def require(self, root: Path) -> None:
        """Check that all files are there.

        Raises:
            DataError: one is not.
        """
        if missing := self.missing(root):
            raise self._not_found(root, missing, "nothing was downloaded")

    def _not_found(self, root: Path, missing: Sequence[DataFile], what_happened: str) -> DataError:
        files = ", ".join(f"{file.path} (MD5 {file.md5})" if file.md5 else file.path for file in missing)
        return MissingDataError(
            f"{type(self).__name__}: missing in {root.absolute()}: {files}; {what_happened}",
            f"put them there, set paths.data_dir, or use embedded data: {self.embedded}",
        )


def fetch(url: str, file: DataFile, folder: Path) -> None:
    """Download a file that torchvision has no class for, by torchvision's downloader, to its place in a folder.

    Raises:
        OSError: it cannot be downloaded.
        RuntimeError: its MD5 sum is not the published one.
    """
    from torchvision.datasets.utils import download_url  # slow to import

    path = folder / file.path
    download_url(url, path.parent, path.name, file.md5)


def fetch_and_extract(url: str, file: DataFile, folder: Path) -> None:
    """Download a zip file with one file in it, and keep that, at its place in a folder; the MD5 sum is the latter's.

    Raises:
        OSError: it cannot be downloaded.
        RuntimeError: its MD5 sum is not the published one.
    """
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive  # slow to import

    path = folder / file.path
    download_and_extract_archive(url, path.parent, remove_finished=True)
    if not check_integrity(path, file.md5):
        raise RuntimeError(f"{path.name} from {url} is damaged: its MD5 sum is not the published one, {file.md5}")


def read_verified(root: Path, file: DataFile, embedded: str) -> bytes:
    """The bytes of a file, checked against the published MD5 sum; ``embedded`` names data that need no files.

    Raises:
        DataError: if it cannot be read, or the sum differs.
    """
    path = root / file.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.absolute()} cannot be read ({one_line(error)}); {embedded}") from error
    if file.md5 is not None:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != file.md5:
            why = f"its MD5 sum is {found}, published is {file.md5} ({len(content):,} bytes)"
            raise damaged(path, why, embedded)
    return content


def damaged(path: Path, why: str, embedded: str) -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(
        f"{path.absolute()} is damaged: {why}; it was left as it is: move it away to download it again; {embedded}"
    )


def _add_missing(source: Path, target: Path) -> None:
    """Move what ``target`` does not have from ``source``; what it has stays."""
    for entry in source.iterdir():
        destination = target / entry.name
        if entry.is_dir() and destination.is_dir():
            _add_missing(entry, destination)
        elif not destination.exists():
            try:
                entry.rename(destination)
            except OSError:
                if not (entry.is_dir() and destination.is_dir()):
                    raise
                _add_missing(entry, destination)  # another process was there in between
