"""Parallel texts: two files of which line i of one translates line i of the other.

Shapes: N sentences.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from attelbo.data.files import DataFile, Downloaded, read_verified
from attelbo.data.text.files import read_lines
from attelbo.data.text.source import Source
from attelbo.errors import DataError

EMBEDDED = "data=dates needs no files"


class Pairs(NamedTuple):
    """N sentences and their translations."""

    source: list[str]
    target: list[str]


class ParallelText(NamedTuple):
    """Pairs of the three splits."""

    train: Pairs
    validation: Pairs
    test: Pairs


class AlignedFiles(Source[ParallelText]):
    """Any files, plain or .gz, with paths that are absolute or relative to the folder of data sets.

    Args:
        train: a file of sentences, and one of their translations.
        validation: likewise.
        test: likewise.

    Raises:
        ValueError: not two files.
    """

    def __init__(self, train: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> None:
        self.files = {"train": list(train), "validation": list(validation), "test": list(test)}
        for split, files in self.files.items():
            if len(files) != 2:
                raise ValueError(f"{split} must name two files, sentences and their translations, got {files}")

    def load(self, root: Path) -> ParallelText:
        """Read the six files; see :meth:`Source.load`."""
        return ParallelText(*(read_pairs(*(root / file for file in files)) for files in self.files.values()))


def read_pairs(source: Path, target: Path) -> Pairs:
    """Two files that are aligned line by line.

    Raises:
        DataError: they have different numbers of lines, or cannot be read.
    """
    pairs = Pairs(read_lines(source), read_lines(target))
    if len(pairs.source) != len(pairs.target):
        raise DataError(
            f"not aligned: {source.absolute()} has {len(pairs.source):,} lines, "
            f"{target.absolute()} has {len(pairs.target):,}"
        )
    return pairs


Language = Literal["de", "en", "fr"]


class Multi30k(Downloaded, Source[ParallelText]):
    """Captions of photographs in English and their translations, task 1: 29,000 + 1,014 + 1,000.

    Elliott, Frank, Sima'an & Specia 2016, "Multi30K: multilingual English-German image descriptions", arXiv:1605.00459;
    French: Elliott, Frank, Barrault, Bougares & Specia 2017. The test split is that of 2016.

    Args:
        source: the language to translate from: de, en or fr.
        target: the one to translate to.

    Raises:
        ValueError: they are the same.
    """

    embedded = EMBEDDED

    def __init__(self, source: Language = "de", target: Language = "en") -> None:
        if source == target:
            raise ValueError(f"source and target must be two languages, got {source} twice")
        self.source: Language = source
        self.target: Language = target

    def download(self, folder: Path, root: Path) -> None:
        """From where they were published."""
        self.fetch_missing(_URL, folder, root)

    def load(self, root: Path) -> ParallelText:
        """Read and check the six files; see :meth:`Source.load`."""
        self.require(root)
        for file in self.files():
            read_verified(root, file, EMBEDDED)
        files = [root / file.path for file in self.files()]
        return ParallelText(*(read_pairs(*files[first : first + 2]) for first in (0, 2, 4)))

    def files(self) -> list[DataFile]:
        """Source and target of training, validation and test."""
        names = [f"{split}.{language}.gz" for split in _SPLITS for language in (self.source, self.target)]
        return [DataFile(f"multi30k/task1/{name}", _MD5[name]) for name in names]


_URL = "https://github.com/multi30k/dataset/raw/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
_SPLITS = ("train", "val", "test_2016_flickr")
_MD5 = {
    "train.de.gz": "81ff90b99829c0cd4b1b587d394afd39",
    "train.en.gz": "0065d13af80720a55ca8153d126e6627",
    "train.fr.gz": "6cb767741dcad3931f966fefbc05203f",
    "val.de.gz": "6e0e229eb049e3fc99a1ef02fb2d5f91",
    "val.en.gz": "2b69aa9253948ac9f67e94917272dd40",
    "val.fr.gz": "93fc564584b7e5ba410c761ea5a1c682",
    "test_2016_flickr.de.gz": "efd67d314d98489b716b145475101932",
    "test_2016_flickr.en.gz": "ff2c0fcb4893a13bd73414306bc250ae",
    "test_2016_flickr.fr.gz": "08dc7cd4a662f31718412de95ca9bfe3",
}
"""Of the files at that commit."""
