"""Texts to model: one file, a folder, three files, or the reference that comes with the interpreter.

A corpus is documents, split. Where a text is one long document it is cut by characters, as is usual for it.
"""

import re
from pathlib import Path
from typing import NamedTuple

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile, Downloaded, fetch, read_verified
from attelbo.data.text.files import read_text
from attelbo.data.text.source import Source
from attelbo.errors import ConfigError, DataError

EMBEDDED = "data=reference_text needs no files"


class Corpus(NamedTuple):
    """The documents of three splits."""

    train: list[str]
    validation: list[str]
    test: list[str]
    joint: str = ""
    """What stands between two documents where they are read as one text."""


class TextFile(Source[Corpus]):
    """A file of UTF-8, plain or .gz, or a folder of .txt files, each a document; its path is absolute or relative to
    the folder of data sets.

    The first nine tenths are for training, the rest is for validation and for testing too, since there is no more: of
    the characters if there is one document, as in nanoGPT, of the documents if there are several.

    Args:
        path: where it is.
        separator: what stands between documents, such as a marker, or two line ends for a blank line; None: each file
            is one.
        validation_share: the share that is not for training.

    Raises:
        ValueError: the share is not between 0 and 1, or the separator is empty.
    """

    def __init__(self, path: str, separator: str | None = None, validation_share: float = 0.1) -> None:
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share must be between 0 and 1, got {validation_share}")
        if separator == "":
            raise ValueError("separator must not be empty; null takes each file for one document")
        self.path = path
        self.separator = separator
        self.validation_share = validation_share

    def load(self, root: Path) -> Corpus:
        """Read and split; see :meth:`Source.load`."""
        joint = self.separator or "\n"
        documents = [part for text in self._texts(root) for part in split_documents(text, self.separator)]
        if len(documents) > 1:
            first = max(int(len(documents) * (1 - self.validation_share)), 1)
            train, rest = documents[:first], documents[first:]
        else:
            first = int(len(documents[0]) * (1 - self.validation_share))
            if first == 0:
                where = (root / self.path).absolute()
                raise DataError(f"{where} is too short to keep a share for validation; {EMBEDDED}")
            train, rest = [documents[0][:first]], [documents[0][first:]]
        return Corpus(train, rest, rest, joint)

    def _texts(self, root: Path) -> list[str]:
        path = root / self.path
        if not path.is_dir():
            return [read_text(path)]
        if files := sorted(path.glob("*.txt")):
            return [read_text(file) for file in files]
        raise DataError(f"{path.absolute()} holds no .txt file; {EMBEDDED}")


class TextFiles(Source[Corpus]):
    """A file for each split.

    Args:
        train: plain or .gz, absolute or relative to the folder of data sets.
        validation: likewise.
        test: likewise.
        separator: what stands between documents; None: each file is one.

    Raises:
        ValueError: the separator is empty.
    """

    def __init__(self, train: str, validation: str, test: str, separator: str | None = None) -> None:
        if separator == "":
            raise ValueError("separator must not be empty; null takes each file for one document")
        self.paths = (train, validation, test)
        self.separator = separator

    def load(self, root: Path) -> Corpus:
        """Read the three files; see :meth:`Source.load`."""
        train, validation, test = (split_documents(read_text(root / path), self.separator) for path in self.paths)
        return Corpus(train, validation, test, self.separator or "\n")


class TinyShakespeare(Downloaded, TextFile):
    """1,115,394 characters of Shakespeare, 65 kinds (Karpathy 2015, char-rnn)."""

    embedded = EMBEDDED

    def __init__(self) -> None:
        TextFile.__init__(self, _SHAKESPEARE.path)

    def files(self) -> list[DataFile]:
        """The one file."""
        return [_SHAKESPEARE]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published."""
        fetch(_SHAKESPEARE_URL, _SHAKESPEARE, folder)

    def load(self, root: Path) -> Corpus:
        """Read, check and split the file; see :meth:`Source.load`."""
        self.require(root)
        read_verified(root, _SHAKESPEARE, EMBEDDED)
        return TextFile.load(self, root)


_SHAKESPEARE = DataFile("tinyshakespeare/input.txt", "6fb458f1232090904fb40fe944165e91")
_SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/"
    "data/tinyshakespeare/input.txt"
)


class ReferenceText(Source[Corpus]):
    """The reference of the Python language, in English, as it comes with the interpreter: about 80 topics, 370,000
    characters in Python 3.11, more or less in other versions.

    Many topics are parts of others: each paragraph is kept in the first that has it only, so that no test text was
    trained on. Of ten topics, in the order of their names, the fifth is for validation and the tenth for testing.
    """

    def load(self, root: Path) -> Corpus:
        """From the interpreter; ``root`` is not used."""
        from pydoc_data.topics import topics  # half a megabyte

        texts: list[str] = []
        seen = {""}
        for name in sorted(topics):
            paragraphs = {" ".join(each.split()): each for each in _BLANK_LINES.split(topics[name].strip("\n"))}
            if new := [text for words, text in paragraphs.items() if words not in seen]:
                texts.append("\n\n".join(new) + "\n")
            seen |= paragraphs.keys()
        return Corpus(*every_tenth(texts), joint="\n")


class ReferenceSentences(Source[Corpus]):
    """The sentences of the reference, 1,567 in Python 3.11, each of them once: those that begin with a capital, end
    with a full stop, hold none of the characters that code is made of, and are not longer than ``longest``.

    Of ten sentences, in the order of the topics' names, the fifth is for validation and the tenth for testing.

    Args:
        longest: characters of a sentence.

    Raises:
        ValueError: it is below 1.
    """

    def __init__(self, longest: int = 160) -> None:
        check_at_least(1, longest=longest)
        self.longest = longest

    def load(self, root: Path) -> Corpus:
        """From the interpreter; ``root`` is not used."""
        from pydoc_data.topics import topics  # half a megabyte

        found = dict.fromkeys(sentence for name in sorted(topics) for sentence in self._sentences(topics[name]))
        return Corpus(*every_tenth(list(found)), joint="\n")

    def _sentences(self, text: str) -> list[str]:
        lines = [" ".join(paragraph.split()) for paragraph in _BLANK_LINES.split(text)]
        parts = [part for line in lines for part in _SENTENCE_ENDS.split(_BULLET.sub("", line))]
        return [part for part in parts if len(part) <= self.longest and _PROSE.fullmatch(part)]


_BLANK_LINES = re.compile(r"\n\s*\n")
_BULLET = re.compile(r"^[*-] ")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])")
_PROSE = re.compile(r"[A-Z][^=<>|\[\]{}~^#\\@+/]*\.")


def every_tenth(texts: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Those to train on; of ten the fifth, for validation; of ten the tenth, for testing."""
    return [text for place, text in enumerate(texts) if place % 10 not in (4, 9)], texts[4::10], texts[9::10]


def split_documents(text: str, separator: str | None) -> list[str]:
    """The documents of a text, without those that are empty.

    Raises:
        ConfigError: there are none.
    """
    documents = [text] if separator is None else [part for part in text.split(separator) if part.strip()]
    if not documents:
        raise ConfigError(f"data.source.separator: there is nothing between {separator!r}")
    return documents
