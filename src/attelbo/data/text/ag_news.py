"""AG News (Zhang, Zhao & LeCun 2015, "Character-level convolutional networks for text classification",
arXiv:1509.01626): titles and first sentences of articles, of four topics."""

import csv
import io
from pathlib import Path

from attelbo.data.files import DataFile, Downloaded, damaged, read_verified
from attelbo.data.text.labelled import EMBEDDED, Labelled, LabelledText
from attelbo.data.text.source import Source
from attelbo.errors import one_line

URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
MD5 = {"train": "b1a00f826fdfbd249f79597b59e1dc12", "test": "d52ea96a97a2d943681189a97654912d"}
TOPICS = {"1": "world", "2": "sports", "3": "business", "4": "science and technology"}
"""By the number in the first column."""


class AGNews(Downloaded, Source[LabelledText]):
    """News of four topics, 120,000 + 7,600 (Zhang, Zhao & LeCun 2015); a text is a title, a blank and the rest."""

    embedded = EMBEDDED

    def files(self) -> list[DataFile]:
        """One to train on and one to test on."""
        return [_file(part) for part in MD5]

    def download(self, folder: Path, root: Path) -> None:
        """From where they are kept; what is in ``root`` is not downloaded again."""
        self.fetch_missing(URL, folder, root)

    def load(self, root: Path) -> LabelledText:
        """Read and check the two files; see :meth:`Source.load`."""
        self.require(root)
        return LabelledText(_read(root, "train"), None, _read(root, "test"))


def _file(part: str) -> DataFile:
    return DataFile(f"ag_news/{part}.csv", MD5[part])


def _read(root: Path, part: str) -> Labelled:
    content = read_verified(root, _file(part), EMBEDDED)
    try:
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        return Labelled([f"{title} {rest}" for _, title, rest in rows], [TOPICS[number] for number, _, _ in rows])
    except (csv.Error, ValueError, KeyError) as error:
        why = f"no rows of topic, title and text ({type(error).__name__}: {one_line(error)})"
        raise damaged(root / _file(part).path, why, EMBEDDED) from error
