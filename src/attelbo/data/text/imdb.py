"""IMDB (Maas et al. 2011): reviews of films, negative or positive."""

import io
import re
import tarfile
import zlib
from collections import defaultdict
from pathlib import Path

from attelbo.data.files import DataFile, Downloaded, damaged, fetch, read_verified
from attelbo.data.text.labelled import EMBEDDED, Labelled, LabelledText
from attelbo.data.text.source import Source
from attelbo.errors import one_line

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
FILE = DataFile("imdb/aclImdb_v1.tar.gz", "7c2ac02c03563afcf9b574c7e56c153a")
_REVIEW = re.compile(r"aclImdb/(train|test)/(neg|pos)/\d+_\d+\.txt")


class IMDB(Downloaded, Source[LabelledText]):
    """Reviews of films, 25,000 + 25,000, half of them positive, of other films in the two parts (Maas et al. 2011).

    As they are in the files, line breaks in HTML among them; those without a label are left out.
    """

    embedded = EMBEDDED

    def files(self) -> list[DataFile]:
        """The one archive."""
        return [FILE]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published."""
        fetch(URL, FILE, folder)

    def load(self, root: Path) -> LabelledText:
        """Read the reviews out of the archive; see :meth:`Source.load`."""
        self.require(root)
        content = read_verified(root, FILE, EMBEDDED)
        parts: dict[str, Labelled] = defaultdict(lambda: Labelled([], []))
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    if (found := _REVIEW.fullmatch(member.name)) and (stream := archive.extractfile(member)):
                        part, label = found.groups()
                        parts[part].texts.append(stream.read().decode())
                        parts[part].labels.append(label)
            if missing := [part for part in ("train", "test") if not parts[part].texts]:
                raise ValueError(f"no reviews in {missing[0]}")
        except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
            why = f"not the archive of IMDB ({type(error).__name__}: {one_line(error)})"
            raise damaged(root / FILE.path, why, EMBEDDED) from error
        return LabelledText(parts["train"], None, parts["test"])
