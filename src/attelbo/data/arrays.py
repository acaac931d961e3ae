"""The user's own arrays on the resident path: images of bytes, and real numbers as images or as vectors.

Shapes: N rows, B batch, (D,) vector or (C, H, W) image.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from attelbo.data.batch import Batch, DataSpec
from attelbo.data.image import ImageDataModule
from attelbo.data.module import Splits
from attelbo.data.options import ImageOptions
from attelbo.data.resident import ResidentSplit, mirror_some
from attelbo.data.sources.arrays import Arrays
from attelbo.data.sources.base import Factor, Images, checked
from attelbo.errors import DataError, UserError
from attelbo.files import write_atomically

Standardize = Literal["none", "each", "all"]

FILE = "arrays.json"
_AT_ONCE = 2**20
"""Numbers that are converted together."""


class Units(NamedTuple):
    """The numbers of a file are ``location + scale * x``, x as the model sees them."""

    location: Tensor
    """() or (D,) or (C, 1, 1), float64."""
    scale: Tensor
    """The same."""
    black: float
    """The smallest of the file's numbers that were trained on, which is shown black."""
    white: float
    """The largest."""

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """log |d x in the file / d x| of rows of a shape, nats."""
        return float(self.scale.log().expand(shape).sum())


class ArrayDataModule(ImageDataModule):
    """Arrays, split and resident: bytes and bools like other images, floats as real numbers in float32.

    Real numbers may be standardized, by mean and standard deviation (over N) of the rows that are trained on. The
    model, and whoever calls it in Python, then sees standardized ones; ``standardized`` and ``restored`` convert. All
    that is reported in nats is still the density of x as the file has it: the logs of the scales are subtracted from
    log p(x). A number that never varies is only centered.

    Args:
        standardize: of real numbers: ``none``, ``each`` (every number of a vector, every channel of images by itself)
            or ``all`` (one mean and one standard deviation).
        options: those of :class:`~attelbo.data.options.ImageOptions`. The source is ``attelbo.data.sources.Arrays``, or
            another whose rows are bytes or, where it is ``real``, floats; ``binarize`` and ``crop`` are of bytes,
            ``nuisance`` of bits.

    Raises:
        ValueError: if a number is out of range.
    """

    _takes_real = True

    def __init__(self, *, standardize: Standardize = "none", **options: Unpack[ImageOptions]) -> None:
        self.standardize: Standardize = standardize
        self._units: Units | None = None
        super().__init__(**options)

    def _describe(self) -> DataSpec:
        spec = super()._describe()
        if self.source.real and self.binarize != "none":
            raise ValueError(f"binarize must be 'none' for {self._name}, which has real numbers, got {self.binarize!r}")
        if not self.source.real and self.standardize != "none":
            raise ValueError(
                f"standardize must be 'none' for {self._name}, whose values are {spec.kind}: of floats only"
            )
        if self.crop and (self.source.real or spec.row != "image"):
            raise ValueError(f"crop must be 0 for {self._name}, which has no images of bytes, got {self.crop}")
        if self.flip and spec.row != "image":
            raise ValueError(f"flip must be false for {self._name}, which has no images")
        return spec

    @property
    def spec(self) -> DataSpec:
        """Known once the header of the file was read and, where numbers are standardized, all of it, unless a run has
        kept what is needed; see :meth:`ImageDataModule.spec`."""
        spec = self._of_images
        if self.standardize == "none":
            return spec
        return replace(spec, log_volume=self.units.log_volume(spec.shape))

    @property
    def units(self) -> Units:
        """The units of real numbers."""
        if self._units is None:
            self._units = self._split("train").units  # pyright: ignore[reportAttributeAccessIssue]
        assert self._units is not None
        return self._units

    # What the model sees, and what the file has

    def standardized(self, x: Tensor) -> Tensor:
        """Real numbers of the file, (..., *shape), as the model sees them, float32."""
        location, scale, *_ = self.units
        return ((x.double() - location.to(x.device)) / scale.to(x.device)).float()

    def restored(self, x: Tensor) -> Tensor:
        """What the model makes, (..., *shape), in the units of the file: real numbers, bytes not rounded, or bits."""
        kind = self._of_images.kind
        if kind != "real":
            return x * 255 if kind == "levels" else x
        location, scale, *_ = self.units
        return x.double() * scale.to(x.device) + location.to(x.device)

    def shown(self, x: Tensor) -> Tensor:
        if self._of_images.kind != "real":
            return x
        _, _, black, white = self.units
        return ((self.restored(x) - black) / max(white - black, 1e-300)).float()

    # Rows that are in no split

    def read(self, files: Sequence[Path]) -> Tensor:
        """Pictures; see :meth:`ImageDataModule.read`."""
        spec = self._of_images
        if spec.kind == "real" or spec.row != "image":
            raise UserError(
                f"{self._name} has no images that a picture could be one of; path=... names a file like its own (.npz, "
                ".npy, .csv), split=test has its rows"
            )
        return super().read(files)

    def read_arrays(self, path: Path) -> Tensor:
        """The rows of a file like that of the run, as an evaluation would see them: (n, *shape).

        Raises:
            UserError: the data are not ``attelbo.data.sources.Arrays``.
            DataError: it holds no rows like those of the run.
        """
        if not isinstance(self.source, Arrays):
            raise UserError(f"{self._name} comes from a source of its own; split=test has its rows")
        x = self.source.rows(path)
        return self.standardized(x) if self.source.real else self._own(x)

    # What a run directory keeps

    def save_state(self, folder: Path) -> None:
        """Keep the description of the files, and the units of their numbers."""
        super().save_state(folder)
        source, units = self.source, self.units if self.source.real else None
        content = {
            "shape": source.shape,
            "n_classes": source.n_classes,
            "factors": source.factors,
            "binary": source.binary,
            "real": source.real,
            "n_validation": source.n_validation,
            "columns": getattr(source, "columns", ()),
            "units": units and [part.tolist() if isinstance(part, Tensor) else part for part in units],
        }
        write_atomically(folder / FILE, json.dumps(content))

    def load_state(self, folder: Path) -> None:
        """Load it.

        Raises:
            DataError: the file is missing or damaged.
        """
        super().load_state(folder)
        path = folder / FILE
        try:
            self._restore(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} does not hold the arrays of this run ({type(error).__name__}: {error})") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        source = self.source
        source.shape, source.n_classes = tuple(state["shape"]), state["n_classes"]
        source.factors = tuple(Factor(*factor) for factor in state["factors"])
        source.binary, source.real, source.n_validation = state["binary"], state["real"], state["n_validation"]
        if isinstance(source, Arrays):
            source.columns = tuple(state["columns"])
        source.described = True
        if state["units"] is not None:
            location, scale, black, white = state["units"]
            self._units = Units(
                torch.tensor(location, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64), black, white
            )
        self._described = self._describe()

    # Files to tensors

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.standardize

    def _load(self) -> Splits:
        if self._of_images.kind != "real":
            return super()._load()
        train, test = checked(self.source, self.root)
        validation_rows, train_rows = self._divide(len(train.x))
        units = self._units or self._measured(train.x, train_rows)
        labelled = self._few_labels(train, train_rows)
        return {
            "train": self._real(labelled, units, train_rows, self.flip),
            "validation": self._real(train, units, validation_rows),
            "test": self._real(test, units),
        }

    def _trained(self) -> ResidentSplit:
        if self._of_images.kind != "real":
            return super()._trained()
        train, _ = self.source.load(self.root)
        _, rows = self._divide(len(train.x))
        return self._real(train, self.units, rows)

    def _measured(self, x: Tensor, rows: Tensor) -> Units:
        """Mean and standard deviation of these rows, in two passes of float64; where none varies, it and 1."""
        over = tuple(range(x.ndim)) if self.standardize == "all" else (0, *range(2, x.ndim))
        low = reduce(torch.minimum, (part.amin(over) for part in _parts(x, rows)))  # () or (D,) or (C,)
        high = reduce(torch.maximum, (part.amax(over) for part in _parts(x, rows)))
        black, white = float(low.min()), float(high.max())
        if self.standardize == "none":
            return Units(low.new_zeros(()), low.new_ones(()), black, white)
        n = len(rows) * x[0].numel() // low.numel()
        across = (-1, *[1] * (x.ndim - 2)) if low.ndim else ()
        mean = torch.stack([part.sum(over) for part in _parts(x, rows)]).sum(0) / n
        location = torch.where(high > low, mean, low).view(across)
        variance = torch.stack([(part - location).square().sum(over) for part in _parts(x, rows)]).sum(0) / n
        scale = torch.where(high > low, variance.sqrt(), 1.0).view(across)
        if not bool((scale.isfinite() & (scale > 0)).all()):
            raise DataError(
                f"{self._name}: numbers of {max(-black, white):.3g} have no variance in float64; multiplied or divided "
                "by a power of ten they do"
            )
        return Units(location, scale, black, white)

    def _real(self, images: Images, units: Units, rows: Tensor | None = None, flip: bool = False) -> "RealSplit":
        rows = torch.arange(len(images.x)) if rows is None else rows
        x, stop, finite = torch.empty(len(rows), *images.x.shape[1:]), 0, True
        for part in _parts(images.x, rows):
            start, stop = stop, stop + len(part)
            x[start:stop] = (part - units.location) / units.scale
            finite &= bool(x[start:stop].isfinite().all())
        if not finite:
            raise DataError(
                f"{self._name}: some numbers are too large for float32, in which they are kept (largest: "
                f"{max(-units.black, units.white):.3g}); data.standardize=each or all makes them smaller"
            )
        return RealSplit(x, None if images.y is None else images.y.index_select(0, rows), units, flip)


class RealSplit(ResidentSplit):
    """Real numbers and labels.

    Args:
        x: (N, D) or (N, C, H, W), float32.
        y: labels (N,) or factors (N, F), int64, or None.
        units: of the file that x comes from.
        flip: mirror each image left to right with probability one half.
    """

    def __init__(self, x: Tensor, y: Tensor | None, units: Units, flip: bool = False) -> None:
        self.x = x
        self.y = y
        self.units = units
        self.flip = flip

    @property
    def repeats(self) -> bool:
        return not self.flip

    def __len__(self) -> int:
        return len(self.x)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        x = self.x.index_select(0, index)
        return Batch(
            mirror_some(x) if self.flip else x, None if self.y is None else self.y.index_select(0, index), index
        )


def _parts(x: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """These rows of x, a few at a time, in float64."""
    for some in rows.split(max(1, _AT_ONCE // x[0].numel())):
        yield x.index_select(0, some).double()
