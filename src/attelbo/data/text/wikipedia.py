"""Texts of Wikipedia that language models are compared on: text8 and enwik8 by character, WikiText by word."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import ClassVar, Literal

from attelbo.data.files import DataFile, Downloaded, damaged, fetch_and_extract, read_verified
from attelbo.data.text.corpora import EMBEDDED, Corpus
from attelbo.data.text.source import Source
from attelbo.errors import one_line

_CODEC_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


class HundredMillionBytes(Downloaded, Source[Corpus]):
    """One of Mahoney's extracts of Wikipedia (2006, "Large text compression benchmark"): 100,000,000 bytes, of which
    as usual the first 90 % are to train on, the next 5 % for validation and the last 5 % for testing."""

    embedded = EMBEDDED
    file: ClassVar[DataFile]
    url: ClassVar[str]

    def files(self) -> list[DataFile]:
        """The one file."""
        return [self.file]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published, out of its zip file."""
        fetch_and_extract(self.url, self.file, folder)

    def load(self, root: Path) -> Corpus:
        """Read, check and split the file; see :meth:`Source.load`."""
        self.require(root)
        text = read_verified(root, self.file, EMBEDDED).decode("latin-1")
        twentieth = len(text) // 20
        return Corpus([text[: -2 * twentieth]], [text[-2 * twentieth : -twentieth]], [text[-twentieth:]])


class Text8(HundredMillionBytes):
    """text8: the words of articles in small letters and blanks, 27 kinds of characters."""

    file = DataFile("text8/text8", "3bea1919949baf155f99411df5fada7e")
    url = "http://mattmahoney.net/dc/text8.zip"


class Enwik8(HundredMillionBytes):
    """enwik8: the beginning of a dump in XML, 205 kinds of bytes.

    Each byte is a character, as the numbers in papers are of bytes: what takes more than one in UTF-8 is written as
    several characters of Latin-1.
    """

    file = DataFile("enwik8/enwik8", "a1fa5ffddb56f4953e226637dabbb36a")
    url = "http://mattmahoney.net/dc/enwik8.zip"


class WikiText(Downloaded, Source[Corpus]):
    """WikiText (Merity, Xiong, Bradbury & Socher 2016, arXiv:1609.07843): good articles, in three published parts.

    By word, with <unk> in place of rare ones: each end of a line is a word too, as in the paper, so that ``2`` has
    2,088,628 + 217,646 + 245,569 words of 33,278 kinds and ``103`` has 103,227,021 to train on, of 267,735 kinds.

    Args:
        size: ``2`` or ``103`` million words.
        raw: the text before rare words were replaced, for characters, bytes and byte pairs.
    """

    embedded = EMBEDDED

    def __init__(self, size: Literal[2, 103] = 2, raw: bool = False) -> None:
        self._folder = f"wikitext-{size}-raw" if raw else f"wikitext-{size}"
        self._suffix = "raw" if raw else "tokens"

    @property
    def _file(self) -> DataFile:
        return DataFile(f"wikitext/{self._folder}-v1.zip", MD5[self._folder])

    def files(self) -> list[DataFile]:
        """The one zip file."""
        return [self._file]

    def download(self, folder: Path, root: Path) -> None:
        """From the first author's page: where it was published it is no more."""
        self.fetch_missing("https://wikitext.smerity.com", folder, root)

    def load(self, root: Path) -> Corpus:
        """Read the parts out of the zip file; see :meth:`Source.load`."""
        self.require(root)
        content = read_verified(root, self._file, EMBEDDED)
        names = [f"{self._folder}/wiki.{part}.{self._suffix}" for part in ("train", "valid", "test")]
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                train, validation, test = ([archive.read(name).decode()] for name in names)
                return Corpus(train, validation, test)
        except _CODEC_ERRORS as error:
            why = f"not the archive of WikiText ({type(error).__name__}: {one_line(error)})"
            raise damaged(root / self._file.path, why, EMBEDDED) from error


MD5 = {
    "wikitext-2": "542ccefacc6c27f945fb54453812b3cd",
    "wikitext-103": "9ddaacaf6af0710eda8c456decff7832",
    "wikitext-2-raw": "f407a2d53283fc4a49bcff21bc5f3770",
    "wikitext-103-raw": "0ca3512bd7a238be4a63ce7b434f8935",
}
