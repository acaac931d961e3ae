"""Cars3D (Reed, Zhang, Zhang & Lee 2015, "Deep visual analogy-making"): 183 cars drawn from 96 places, in colour.

17,568 images: every combination of elevation (4), azimuth (24) and car (183) once. As disentanglement_lib has it,
resized (Lanczos) from 128 to 64 pixels. The cars are numbered in the order of their files' names.

Shapes: N images, F = 3 factors.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile, fetch
from attelbo.data.sources.base import Factor, FileSource, Splits, damaged, read_verified, split_in_blocks
from attelbo.data.sources.resizing import resized
from attelbo.errors import one_line

URL = "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz"
FILE = DataFile("cars3d/nips2015-analogy-data.tar.gz", "4e866a7919c1beedf53964e6f7a23686")
SIDE = 128

_CODEC_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError, LookupError, ValueError, TypeError, RuntimeError)


class Cars3D(FileSource):
    """Cars3D at ``size`` x ``size`` pixels; y holds the numbers of the three factors' values.

    No split was published: the test rows are the first ``test_size`` of a fixed permutation.

    Raises:
        ValueError: a size below 1, or a test set that is empty.
    """

    factors = (Factor("elevation", 4), Factor("azimuth", 24), Factor("car", 183, ordered=False))

    def __init__(self, size: int = 64, test_size: int = 2000) -> None:
        check_at_least(1, size=size, test_size=test_size)
        self.shape = (3, size, size)
        self.test_size = test_size

    def files(self) -> list[DataFile]:
        """The one archive."""
        return [FILE]

    def download(self, folder: Path, root: Path) -> None:
        """From where it was published."""
        fetch(URL, FILE, folder)

    def read(self, root: Path) -> Splits:
        """Read the cars in the archive one by one, and resize their images."""
        path = root / FILE.path
        n_elevations, n_azimuths, n_cars = (factor.n_values for factor in self.factors)
        content = read_verified(root, FILE)
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                names = sorted(name for name in archive.getnames() if name.endswith(".mat") and "/cars/" in name)
                if len(names) != n_cars:
                    raise ValueError(f"{len(names)} cars, not {n_cars}")
                # In the order of the archive: to go back in it is to decompress it anew.
                cars = [names.index(name) for name in archive.getnames() if name in names]
                views = torch.cartesian_prod(*map(torch.arange, (n_elevations, n_azimuths)))  # (96, 2)
                y = torch.cat([torch.cat([views, torch.full((len(views), 1), car)], 1) for car in cars])
                return split_in_blocks(self, path, self._views(archive, names), y, self.test_size, "cars3d test split")
        except _CODEC_ERRORS as error:
            raise damaged(path, f"not the Cars3D archive ({type(error).__name__}: {one_line(error)})") from error

    def _views(self, archive: tarfile.TarFile, names: list[str]) -> Iterator[Tensor]:
        """The images of each car (96, 3, size, size), in the order of the archive, the azimuth running fastest."""
        for member in archive:
            if member.name in names:
                views = _read_car(archive.extractfile(member))
                if views.shape[:2] != tuple(factor.n_values for factor in self.factors[:2]):
                    raise ValueError(f"{member.name} has views {views.shape[:2]}")
                yield resized(views.reshape(-1, SIDE, SIDE, 3), self.shape)


def _read_car(stream: Any) -> NDArray[np.uint8]:
    """The views of a car by elevation and azimuth, (4, 24, 128, 128, 3)."""
    from scipy.io import loadmat  # slow to import

    views = loadmat(io.BytesIO(stream.read()))["im"]
    if views.dtype != np.uint8 or views.ndim != 5 or views.shape[:3] != (SIDE, SIDE, 3):
        raise ValueError(f"im is {views.dtype} of shape {views.shape}")
    return np.ascontiguousarray(views.transpose(4, 3, 0, 1, 2))
