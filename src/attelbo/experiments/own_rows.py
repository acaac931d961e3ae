"""Rows that are in no split of the data of a run: pictures, or arrays in a file like that of the run.

Shapes: N rows, (C, H, W) image or (D,) vector.
"""

from pathlib import Path

from torch import Tensor

from attelbo.data import ArrayDataModule, ImageDataModule
from attelbo.data.pictures import pictures_in
from attelbo.errors import ConfigError, DataError
from attelbo.experiments.trained import Trained

ARRAYS = (".npz", ".npy", ".csv")


def own_rows(trained: Trained, path: str | None) -> tuple[list[str], Tensor]:
    """Their names, and the rows (N, C, H, W) or (N, D), as an evaluation would see them.

    Args:
        trained: a model of images or vectors.
        path: a picture, a folder of them, or a file of arrays, whose rows are numbered from 0.

    Raises:
        ConfigError: no such file, or none that could be rows of these data.
        UserError: the model reads neither pictures nor arrays.
    """
    data = trained.data
    if path is None or not isinstance(data, ImageDataModule):
        raise ConfigError(
            f"{trained.described}: path=... names a picture or a folder of them, split=test its test images"
        )
    place = Path(path)
    files = pictures_in(place) if place.is_dir() else [place]
    if not files or not place.exists():
        raise ConfigError(f"path={path}: {'no picture in this folder' if place.is_dir() else 'no such file or folder'}")
    if place.suffix.lower() in ARRAYS and isinstance(data, ArrayDataModule):
        x = data.read_arrays(place)
        return [str(row) for row in range(len(x))], x
    try:
        return list(map(str, files)), data.read(files)
    except DataError as error:
        if place.is_dir() or error.__cause__ is None:
            raise
        raise ConfigError(
            f"path={path}: no picture; path=... names a picture or a folder of them, split=test the test rows of "
            f"{data.spec.name}"
        ) from error
