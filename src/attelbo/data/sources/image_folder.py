"""The user's own pictures: those below a folder, made square and of one size.

Shapes: N pictures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from attelbo.checks import check_at_least
from attelbo.data.moving import absent
from attelbo.data.pictures import SUFFIXES, decoded_once, folders_in, pictures_in
from attelbo.data.sources.base import EMBEDDED, Images, ImageSource, Splits
from attelbo.errors import DataError

_TEST_EVERY = 10
_VALIDATION = ("val", "valid", "validation")


class ImageFolder(ImageSource):
    """The pictures below a folder (PNG, JPEG, WebP, TIFF, BMP, GIF), the middle of each resized to a square.

    Where it holds folders ``train`` and ``test``, and maybe ``val``, ``valid`` or ``validation``, these are the splits.
    Else every tenth picture, of each class in the order of their names, is for testing. Links to folders elsewhere are
    followed.

    Args:
        path: where they are, absolute or relative to the folder of data sets.
        size: pixels on a side.
        channels: 1 for grey levels, 3 for colours.
        n_classes: the pictures lie in so many folders, the same in each split, each a class of that name, numbered in
            the order of their names; None: no classes, and the folders inside mean nothing.
        crop: the side of the square in the middle that is resized; the picture's shorter side if None.

    Raises:
        ValueError: size, n_classes or crop is out of range.
    """

    gives_away = True
    how_labelled = "data.source.n_classes=... makes a class of each of so many folders"

    def __init__(
        self,
        path: str,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        n_classes: int | None = None,
        crop: int | None = None,
    ) -> None:
        check_at_least(1, size=size, crop=crop)
        if n_classes is not None and n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, or null, got {n_classes}")
        self.path = path
        self.shape = (channels, size, size)
        self.n_classes = n_classes
        self.crop = crop

    def class_names(self, root: Path) -> tuple[str, ...]:
        """Those of the folders."""
        folder = root / self.path
        if self.n_classes is None or not folder.is_dir():
            return ()
        return tuple(path.name for path in self._folders(folder / "train" if _is_divided(folder) else folder))

    def load(self, root: Path) -> Splits:
        """Find and decode all of them; see :meth:`ImageSource.load`."""
        folder = root / self.path
        if not folder.is_dir():
            raise absent(folder, "folder of pictures")
        inside = _names_in(folder)
        validation = sorted(inside.intersection(_VALIDATION))
        if _is_divided(folder):
            if len(validation) > 1:
                raise DataError(f"{folder.absolute()} holds {' and '.join(validation)}: one is enough to validate on")
            return self._published(root, validation)
        if "train" in inside and validation:
            raise DataError(
                f"{folder.absolute()} holds train and {validation[0]}, and no test; test is what is measured in the "
                f"end: rename {validation[0]}, or add it"
            )
        parts = [
            [
                (label, file)
                for label, place, file in self._ranked(folder)
                if (place % _TEST_EVERY == _TEST_EVERY - 1) is tested
            ]
            for tested in (False, True)
        ]
        if not all(parts):
            raise DataError(
                f"{folder.absolute()} holds {sum(map(len, parts))} pictures ({', '.join(sorted(SUFFIXES))}): too few "
                f"to keep every tenth for testing; {EMBEDDED}"
            )
        return Splits(*(self._images(root, part) for part in parts))

    def _published(self, root: Path, validation: Sequence[str]) -> Splits:
        """The folders as they are; those to validate on come last among the training rows."""
        folder = root / self.path
        names = ("train", *validation, "test")
        parts = {name: [(label, file) for label, _, file in self._ranked(folder / name)] for name in names}
        if empty := [name for name in names if not parts[name]]:
            raise DataError(f"{(folder / empty[0]).absolute()} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        if self.n_classes is not None:
            classes = {name: [path.name for path in self._folders(folder / name)] for name in names}
            if differs := [name for name in names if classes[name] != classes["train"]]:
                raise DataError(f"{folder.absolute()}: {differs[0]} has other folders, one for each class, than train")
        self.n_validation = sum(len(parts[name]) for name in validation)
        train = [*parts["train"], *(row for name in validation for row in parts[name])]
        return Splits(self._images(root, train), self._images(root, parts["test"]))

    def _ranked(self, folder: Path) -> list[tuple[int, int, Path]]:
        """Class, place in it, and file of each picture."""
        classes = [pictures_in(inside) for inside in self._folders(folder)]
        return [(label, place, file) for label, files in enumerate(classes) for place, file in enumerate(files)]

    def _folders(self, folder: Path) -> list[Path]:
        """One for each class, or the one of all."""
        if self.n_classes is None:
            return [folder]
        found = folders_in(folder)
        if len(found) != self.n_classes:
            raise DataError(
                f"{folder.absolute()} holds {len(found)} folders, one for each class, but data.source.n_classes is "
                f"{self.n_classes}; null is for pictures without classes"
            )
        return found

    def _images(self, root: Path, rows: Sequence[tuple[int, Path]]) -> Images:
        labels = None if self.n_classes is None else torch.tensor([label for label, _ in rows])
        return Images(decoded_once(root, [file for _, file in rows], self.shape, self.crop), labels)


def _is_divided(folder: Path) -> bool:
    """Whether it holds the splits."""
    return {"train", "test"} <= _names_in(folder)


def _names_in(folder: Path) -> set[str]:
    """The names of the folders in it."""
    return {path.name for path in folders_in(folder)}
