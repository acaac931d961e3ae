"""Texts with labels: CSV files, files of "label sentence" lines, and the names of characters, which need no file."""

import csv
import io
import itertools
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from attelbo.data.text.files import read_lines, read_text
from attelbo.data.text.source import Source
from attelbo.errors import DataError

EMBEDDED = "data=unicode_names needs no files"


class Labelled(NamedTuple):
    """Texts, and the name of the class of each."""

    texts: list[str]
    labels: list[str]


class LabelledText(NamedTuple):
    """The rows of three splits; None where there are none of their own."""

    train: Labelled
    validation: Labelled | None
    test: Labelled | None


class LabelledFiles(Source[LabelledText]):
    """A file for each split that has one, plain or .gz, with a path absolute or relative to the folder of data sets.

    Args:
        train: the file to train on.
        validation: the one to choose weights by, if there is one.
        test: the one to test on, if there is one.
        encoding: of their characters.

    Raises:
        ValueError: no such encoding.
    """

    def __init__(
        self, train: str, validation: str | None = None, test: str | None = None, encoding: str = "utf-8"
    ) -> None:
        try:
            "a".encode(encoding)  # not codecs.lookup, which also knows those that are not for text, such as hex
        except (LookupError, ValueError) as error:
            raise ValueError(f"encoding must be one of text that Python knows, got {encoding!r}") from error
        self.train = train
        self.others = (validation, test)
        self.encoding = encoding

    def load(self, root: Path) -> LabelledText:
        """Read the files; see :meth:`Source.load`."""
        others = (None if path is None else self._read(root / path) for path in self.others)
        return LabelledText(self._read(root / self.train), *others)

    @abstractmethod
    def _read(self, path: Path) -> Labelled:
        """The rows of a file."""


class LabelledLines(LabelledFiles):
    """Lines of a label, a blank and a sentence, as of TREC, SST, MR, Subj, CR and MPQA in the form of Kim 2014."""

    def _read(self, path: Path) -> Labelled:
        rows = [line.split(maxsplit=1) for line in read_lines(path, self.encoding)]
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise DataError(f"{path.absolute()}, line {number:,}: expected a label, a blank and a sentence")
        return Labelled([sentence for _, sentence in rows], [label for label, _ in rows])


class LabelledCSV(LabelledFiles):
    """CSV files whose first line names the columns.

    Args:
        train: the file to train on.
        validation: the one to choose weights by, if there is one.
        test: the one to test on, if there is one.
        text: the column of texts.
        label: the column of classes.
        delimiter: what stands between columns.
        encoding: of their characters.

    Raises:
        ValueError: no such encoding, or a delimiter that is not one character or means something else.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        text: str = "text",
        label: str = "label",
        delimiter: str = ",",
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(train, validation, test, encoding)
        if len(delimiter) != 1 or delimiter in '\r\n"':
            raise ValueError(f"delimiter must be one character, no quote and no end of a line, got {delimiter!r}")
        self.columns = (text, label)
        self.delimiter = delimiter

    def texts(self, path: Path) -> list[str]:
        """The column of texts of another file like these, which need not have labels.

        Raises:
            DataError: the file is missing or damaged, or lacks the column.
        """
        column = self.columns[0]
        alone = LabelledCSV(str(path), text=column, label=column, delimiter=self.delimiter, encoding=self.encoding)
        return alone._read(path).texts

    def _read(self, path: Path) -> Labelled:
        text = read_text(path, self.encoding)
        most = csv.field_size_limit(len(text))  # 131,072 characters; a text may be longer
        try:
            rows = list(self._rows(path, text))
        finally:
            csv.field_size_limit(most)
        if not rows:
            raise DataError(f"{path.absolute()} has no row but the first")
        return Labelled([text for text, _ in rows], [label for _, label in rows])

    def _rows(self, path: Path, content: str) -> Iterator[tuple[str, str]]:
        """The text and the label of each row."""
        # Not strict, a quote that is never closed would swallow all rows behind it.
        reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=self.delimiter, strict=True)
        line = 1
        try:
            names = reader.fieldnames or []
            for column in self.columns:
                if names.count(column) != 1:
                    found = f"{names.count(column)} columns" if column in names else "no column"
                    raise DataError(f"{path.absolute()} has {found} {column!r}; it has {', '.join(map(repr, names))}")
            line = reader.line_num + 1
            for row in reader:
                told = self._misfit(row)
                if told is not None:
                    raise DataError(f"{path.absolute()}, line {reader.line_num:,}: {told}")
                text, label = (row[column] for column in self.columns)
                yield text, label.strip()
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path.absolute()}, line {line:,}: a quote that begins a text ends it too, and those in it are "
                f"doubled ({error})"
            ) from error

    def _misfit(self, row: Mapping[str | None, Any]) -> str | None:
        """What is wrong with a row, which has None for what it lacks, and under None what it has too much."""
        if None in row:
            return f"more columns than the first line; a text that holds {self.delimiter!r} stands between quotes"
        if None in (row[column] for column in self.columns):
            return "fewer columns than the first line"
        return None if row[self.columns[1]].strip() else f"its {self.columns[1]!r} is empty"


class UnicodeNames(Source[LabelledText]):
    """The names of characters, such as "latin small letter o with stroke", each with its general category, such as
    lower-case letter (Ll), in 18 classes: real data that every interpreter brings along.

    Those of Unicode 3.2, which does not change with the version of Python; without CJK ideographs and Hangul syllables,
    whose names are numbers or spellings, and without categories of fewer than 30 characters.
    """

    def load(self, root: Path) -> LabelledText:
        """From the interpreter; ``root`` is not used."""
        names = _unicode_names()
        return LabelledText(Labelled([name for name, _ in names], [category for _, category in names]), None, None)


_FEWEST = 30


@lru_cache(1)
def _unicode_names() -> tuple[tuple[str, str], ...]:
    """Names and categories, a fifth of a second of looking up: kept for the next run of this process."""
    old = unicodedata.ucd_3_2_0
    # No other planes had named characters then.
    characters = map(chr, itertools.chain(range(0x30000), range(0xE0000, 0xE1000)))
    named = ((old.name(character, ""), old.category(character)) for character in characters)
    rows = [(n, c) for n, c in named if n and not n.startswith(("CJK ", "HANGUL SYLLABLE "))]
    size = Counter(category for _, category in rows)
    return tuple((name.lower(), category) for name, category in rows if size[category] >= _FEWEST)
