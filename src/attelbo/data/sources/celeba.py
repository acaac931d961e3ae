"""CelebA (Liu, Luo, Wang & Tang 2015): 202,599 faces of celebrities, aligned, with 40 attributes each.

As VAEs are usually trained on it (Larsen et al. 2016): the middle 148 x 148 pixels of 178 x 218, resized to 64 x 64.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile
from attelbo.data.pictures import decoded_once
from attelbo.data.sources.base import FileSource, Images, Splits, damaged, read_verified
from attelbo.errors import DataError, did_you_mean, nearest, one_line

FOLDER = "celeba"
PICTURES = DataFile(f"{FOLDER}/img_align_celeba", None)
PARTITION = DataFile(f"{FOLDER}/list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668")
ATTRIBUTES = DataFile(f"{FOLDER}/list_attr_celeba.txt", "75e246fa4810816ffd6ee81facbd244c")
_PARTS = ("train", "validation", "test")


class CelebA(FileSource):
    """CelebA in torchvision's layout and in its published splits, 162,770 + 19,867 to validate on + 19,962.

    Decoded once: 2.5 GB at 64 x 64, kept beside the data sets. The folder of pictures is taken as it is, or extracted
    from ``img_align_celeba.zip`` beside it.

    Args:
        size: pixels on a side.
        crop: the side of the square in the middle that is resized; the picture's shorter side if None.
        attribute: y is 1 where the picture has it, such as ``Smiling``, else 0; None: there is no y.

    Raises:
        ValueError: size or crop is below 1.
    """

    gives_away = True

    def __init__(self, size: int = 64, crop: int | None = 148, attribute: str | None = None) -> None:
        check_at_least(1, size=size, crop=crop)
        self.shape = (3, size, size)
        self.n_classes = None if attribute is None else 2
        self.crop = crop
        self.attribute = attribute

    def files(self) -> list[DataFile]:
        """The folder of pictures and the lists."""
        return [PICTURES, PARTITION] if self.attribute is None else [PICTURES, PARTITION, ATTRIBUTES]

    def is_there(self, root: Path, file: DataFile) -> bool:
        """The pictures as a folder."""
        return (root / file.path).is_dir() if file == PICTURES else super().is_there(root, file)

    def download(self, folder: Path, root: Path) -> None:
        """By torchvision's functions from where it was published; an archive in ``root`` is not downloaded again."""
        from torchvision.datasets import CelebA as Published
        from torchvision.datasets.utils import check_integrity, download_file_from_google_drive, extract_archive

        (folder / FOLDER).mkdir()
        wanted = {Path(file.path).name for file in self.missing(root)}
        for number, md5, name in Published.file_list:
            path, given = folder / FOLDER / name, root / FOLDER / name
            if Path(name).stem not in wanted and name not in wanted:
                continue
            if given.is_file():
                if not check_integrity(str(given), md5):
                    raise RuntimeError(f"{given.absolute()} has another MD5 sum than the published {md5}")
                path.symlink_to(given.absolute())
            else:
                try:
                    download_file_from_google_drive(number, str(path.parent), name, md5)
                except ImportError as error:  # torchvision downloads from there with a package of its own
                    raise RuntimeError(one_line(error)) from error
            if path.suffix == ".zip":
                extract_archive(str(path))

    def read(self, root: Path) -> Splits:
        """Read the lists and decode the pictures."""
        parts = self._parts(root)
        labels = self._labels(root)
        there = {path.name for path in (root / PICTURES.path).iterdir()}
        names = [name for part in parts for name in part]
        if lacking := [name for name in names if name not in there]:
            raise damaged(
                root / PICTURES.path, f"{len(lacking):,} of {len(names):,} pictures are not in it, {lacking[0]}"
            )
        if labels is not None and (lacking := [name for name in names if name not in labels]):
            raise damaged(root / ATTRIBUTES.path, f"it has no line for {len(lacking):,} pictures, {lacking[0]}")
        self.n_validation = len(parts[1])
        return Splits(self._images(root, [*parts[0], *parts[1]], labels), self._images(root, parts[2], labels))

    def _images(self, root: Path, names: Sequence[str], labels: dict[str, int] | None) -> Images:
        x = decoded_once(root, [root / PICTURES.path / name for name in names], self.shape, self.crop)
        return Images(x, None if labels is None else torch.tensor([labels[name] for name in names]))

    @staticmethod
    def _parts(root: Path) -> list[list[str]]:
        """The names of the pictures of each split."""
        path = root / PARTITION.path
        try:
            rows = [line.split() for line in read_verified(root, PARTITION).decode("ascii").splitlines()]
            parts = [[name for name, part in rows if int(part) == number] for number in range(len(_PARTS))]
        except ValueError as error:
            raise damaged(path, f"no list of names and splits ({one_line(error)})") from error
        if empty := [part for part, names in zip(_PARTS, parts, strict=True) if not names]:
            raise damaged(path, f"it has no rows of the {empty[0]} split")
        return parts

    def _labels(self, root: Path) -> dict[str, int] | None:
        """Whether each picture has the attribute, by its name."""
        if self.attribute is None:
            return None
        path = root / ATTRIBUTES.path
        try:
            _, head, *rows = read_verified(root, ATTRIBUTES).decode("ascii").splitlines()
            names = head.split()
            if self.attribute not in names:
                meant = did_you_mean(nearest(self.attribute, names), f"there are {', '.join(names)}")
                raise DataError(f"data.source.attribute={self.attribute}: CelebA has no such attribute{meant}")
            column = names.index(self.attribute) + 1
            return {row[0]: int(row[column] == "1") for row in map(str.split, rows)}
        except (ValueError, IndexError) as error:
            raise damaged(path, f"no list of attributes ({one_line(error)})") from error
