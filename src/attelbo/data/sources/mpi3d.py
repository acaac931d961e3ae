"""MPI3D (Gondal et al. 2019): 1,036,800 pictures of a robot arm that holds a thing, 64x64 in colour, from seven known
factors: drawn simply, drawn realistically, or photographed.

Every combination of colour and shape (6 each), size (2), height of the camera and background (3 each) and the arm's two
axes (40 each) once, in this order. 12.7 GB in memory.

Differs from disentanglement_lib, whose ``mpi3d_toy`` is that of a competition, with 4 colours and 4 shapes.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import torch

from attelbo.checks import check_at_least
from attelbo.data.files import DataFile
from attelbo.data.numpy_files import stream_rows
from attelbo.data.sources.base import Factor, FileSource, Splits, damaged, split_in_blocks
from attelbo.errors import one_line

Variant = Literal["toy", "realistic", "real"]

URL = "https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main"

_ROWS_AT_ONCE = 4096
_CODEC_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


class MPI3D(FileSource):
    """MPI3D; y holds the numbers of the seven factors' values.

    No split was published: the test rows are the first ``test_size`` of a fixed permutation. Nor was an MD5 sum: the
    file is checked by the CRC-32 sum that is in it, by its type and shape, and by the number of images.

    Args:
        variant: ``toy`` (drawn simply), ``realistic`` (drawn realistically) or ``real`` (photographed).
        test_size: rows for testing.

    Raises:
        ValueError: a test set that is empty.
    """

    shape = (3, 64, 64)
    gives_away = True
    factors = (
        Factor("colour", 6, ordered=False),
        Factor("shape", 6, ordered=False),
        Factor("size", 2),
        Factor("camera height", 3),
        Factor("background", 3, ordered=False),
        Factor("horizontal axis", 40),
        Factor("vertical axis", 40),
    )

    def __init__(self, variant: Variant, test_size: int = 10_000) -> None:
        check_at_least(1, test_size=test_size)
        self.variant: Variant = variant
        self.test_size = test_size

    @property
    def _file(self) -> DataFile:
        return DataFile(f"mpi3d/mpi3d_{self.variant}.npz", None)

    def files(self) -> list[DataFile]:
        """The one file."""
        return [self._file]

    def download(self, folder: Path, root: Path) -> None:
        """From where its authors put it."""
        self.fetch_missing(URL, folder, root)

    def read(self, root: Path) -> Splits:
        """Read the images, each straight to its place in its split; nothing pickled is opened."""
        path = root / self._file.path
        channels, height, width = self.shape
        y = torch.cartesian_prod(*(torch.arange(factor.n_values) for factor in self.factors))
        try:
            with zipfile.ZipFile(path) as archive, archive.open("images.npy") as stream:
                n, blocks = stream_rows(stream, "images", (height, width, channels), _ROWS_AT_ONCE)
                if n != len(y):
                    raise ValueError(f"images has {n:,} rows, not {len(y):,}")
                images = (torch.from_numpy(block).permute(0, 3, 1, 2) for block in blocks)
                return split_in_blocks(self, path, images, y, self.test_size, "mpi3d test split")
        except _CODEC_ERRORS as error:
            raise damaged(path, f"not the MPI3D archive ({type(error).__name__}: {one_line(error)})") from error
