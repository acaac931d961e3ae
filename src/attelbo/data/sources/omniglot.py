"""OMNIGLOT (Lake, Salakhutdinov & Tenenbaum 2015): handwritten characters, 20 drawings of each.

Read from the published zip files where they are present, since these have MD5 sums, else from the
extracted folders, in which every character must have its 20 drawings. Decoded, inverted (ink is 255), and resized
(bilinear with antialiasing, 105 to ``size`` pixels) once, before training: about 0.15 ms a drawing.

Shapes: N drawings.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile
from attelbo.data.sources.base import FileSource, Images, Splits, as_images, damaged, read_verified
from attelbo.errors import one_line

Variant = Literal["full", "small"]

SMALL_SETS = (
    DataFile("omniglot_small/images_background_small1.zip", "e704a628b5459e08445c13499850abc4"),
    DataFile("omniglot_small/images_background_small2.zip", "b75a71a51d3b13f821f212756fe481fd"),
)
N_CHARACTERS = {"full": 964 + 659, "small": 242}
N_DRAWERS = 20
FIRST_TEST_DRAWER = 17
SIDE = 105
_DRAWER = re.compile(r"_\d+\.png$")

_RESIZED_AT_ONCE = 1000


class Omniglot(FileSource):
    """OMNIGLOT at ``size`` x ``size`` pixels; y numbers the characters.

    ``full`` (50 alphabets): trained on the background set, 19,280 drawings, tested on the evaluation set, 13,180,
    of characters never seen. ``small`` (8 alphabets of the background set, 242 characters): the union of the two
    published small sets, which share Greek and Latin, without the duplicates; tested on the last 4 of the 20
    drawers of each character, 3,872 + 968.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, size: int = 28, variant: Variant = "full") -> None:
        check_at_least(1, size=size)
        self.variant: Variant = variant
        self.shape = (1, size, size)
        self.n_classes = N_CHARACTERS[variant]

    def is_there(self, root: Path, file: DataFile) -> bool:
        """As a zip file or as a folder."""
        return super().is_there(root, file) or (root / file.path).with_suffix("").is_dir()

    def download(self, folder: Path, root: Path) -> None:
        """By torchvision's class; the small sets, which it does not have, by its downloader."""
        from torchvision import datasets  # slow to import
        from torchvision.datasets.utils import download_and_extract_archive

        if self.variant == "full":
            for background in (True, False):
                datasets.Omniglot(folder, background=background, download=True)
            return
        for file in SMALL_SETS:
            path = Path(file.path)
            url = f"{datasets.Omniglot.download_url_prefix}/{path.name}"
            download_and_extract_archive(url, folder / path.parent, filename=path.name, md5=file.md5)

    def read(self, root: Path) -> Splits:
        """Read, decode and resize all drawings."""
        sets = [dict(_drawings(root, file)) for file in self.files()]
        if self.variant == "full":
            train, test = sets
            labels = _numbered(root, train, 0)
            labels |= _numbered(root, test, len(labels))
        else:
            union = {name: path for drawings in sets for name, path in drawings.items()}
            labels = _numbered(root, union, 0)
            test = {name: png for name, png in union.items() if _drawer(name) >= FIRST_TEST_DRAWER}
            train = {name: png for name, png in union.items() if name not in test}
        if len(labels) != self.n_classes:
            raise damaged(root / Path(self.files()[0].path).parent, f"{len(labels)} characters, not {self.n_classes}")
        return Splits(self._images(root, train, labels), self._images(root, test, labels))

    def files(self) -> list[DataFile]:
        """The zip files of the two sets."""
        if self.variant == "small":
            return list(SMALL_SETS)
        from torchvision.datasets import Omniglot as Published  # slow to import

        return [DataFile(f"{Published.folder}/{name}.zip", md5) for name, md5 in Published.zips_md5.items()]

    def _images(self, root: Path, drawings: dict[str, bytes], labels: dict[str, int]) -> Images:
        names = sorted(drawings)
        ink = torch.from_numpy(np.stack([_decode(root, name, drawings[name]) for name in names]))
        y = torch.tensor([labels[_character(name)] for name in names])
        return as_images(self, root, _resize(ink, (self.shape[1], self.shape[2])), y)


def _drawings(root: Path, file: DataFile) -> Iterator[tuple[str, bytes]]:
    """Pairs of ``alphabet/character/drawing.png`` and the file's content."""
    path = root / file.path
    if path.is_file():
        content = read_verified(root, file)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    if name.endswith(".png"):
                        yield name.partition("/")[2], archive.read(name)
        except zipfile.BadZipFile as error:
            raise damaged(path, str(error)) from error
    else:
        folder = path.with_suffix("")
        for drawing in folder.glob("*/*/*.png"):
            yield drawing.relative_to(folder).as_posix(), drawing.read_bytes()


def _numbered(root: Path, drawings: dict[str, bytes], first: int) -> dict[str, int]:
    """A number for each character, in alphabetical order."""
    labels = {}
    for character, group in groupby(sorted(drawings), key=_character):
        names = list(group)
        if len(names) != N_DRAWERS:
            raise damaged(root, f"OMNIGLOT's {character} has {len(names)} drawings, not {N_DRAWERS}")
        if other := [name for name in names if _DRAWER.search(name) is None]:
            raise damaged(root, f"OMNIGLOT's {other[0]} has no number of a drawer, as 0709_20.png has")
        labels[character] = first + len(labels)
    return labels


def _character(name: str) -> str:
    return name.rpartition("/")[0]


def _drawer(name: str) -> int:
    """20 for ``.../0709_20.png``."""
    return int(Path(name).stem.rpartition("_")[2])


def _decode(root: Path, name: str, png: bytes) -> np.ndarray:
    """True where there is ink: (105, 105), bool."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            if image.size != (SIDE, SIDE):
                raise damaged(root, f"OMNIGLOT's {name} has {image.width} x {image.height} pixels, not {SIDE} x {SIDE}")
            return ~np.asarray(image.convert("1"))
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: a broken PNG
        raise damaged(root, f"OMNIGLOT's {name} is no picture ({one_line(error)})") from error


def _resize(ink: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) bool to (N, 1, H, W) uint8, 255 being full ink."""
    parts = [
        F.interpolate(part.unsqueeze(1).float(), size=size, mode="bilinear", antialias=True)
        for part in ink.split(_RESIZED_AT_ONCE)
    ]
    return torch.cat([part.mul_(255).round_().clamp_(0, 255).to(torch.uint8) for part in parts])
