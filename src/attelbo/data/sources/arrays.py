"""The user's own arrays, in NumPy's files or a table (CSV): images, vectors, labels, factors of variation.

Their type decides what they are: bytes are grey levels, bools are bits, floats are real numbers. To build a model only
the headers and the labels are read.

Shapes: N rows, D numbers, (C, H, W) image, F factors.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attelbo.data.module import fixed_generator
from attelbo.data.numeric_table import Columns, Table, read_table
from attelbo.data.numpy_files import Member, as_tensor, members_of, rows_with_gaps
from attelbo.data.rows import put_in_order
from attelbo.data.sources.base import Factor, Images, ImageSource, Splits
from attelbo.errors import DataError

Channels = Literal["auto", "first", "last"]
Held = Member | Columns

_TEST_EVERY = 10
_MOST_CHANNELS = 4
_LARGE_ROW = 256
"""Bytes of a row from which a row in another place takes less memory than the order that says so."""
_PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}


class Arrays(ImageSource):
    """An archive (.npz) with ``x`` and, if there are any, labels ``y`` or ``factors``; an array (.npy); a table (.csv).

    x is (N, D), vectors, or (N, H, W), (N, C, H, W) or (N, H, W, C), images: C is the one of the two dimensions that is
    at most 4. Bytes are levels, bools are 0 or 1, floats are real numbers. Labels are (N,), integers that count the
    classes from 0; factors are (N, F), a column of such integers each, named by ``factor_names`` (F,) if it is there.

    Ready-made splits are ``x_train``, ``x_test`` and maybe ``x_validation`` (or ``x_val``, ``x_valid``, or the words
    the other way round: ``train_x``), and so for ``y`` or ``factors``. Else a tenth of the rows is for testing, the
    same in every run.

    A table has numbers below a line of names; a column ``y``, or the one that is named, holds labels of any kind.

    Args:
        path: the file, absolute or relative to the folder of data sets.
        labels: a .npy file of labels, beside a .npy file.
        x: the name of x in the archive.
        y: that of the labels, of a table their column; null: none.
        factors: that of the factors; null: none.
        channels: where they are in four-dimensional arrays: ``first``, ``last``, or ``auto``, the rule above.
    """

    described = False
    how_labelled = "data.source.y=... is the name of theirs, data.source.labels=... their file"

    def __init__(
        self,
        path: str,
        labels: str | None = None,
        x: str = "x",
        y: str | None = "y",
        factors: str | None = "factors",
        channels: Channels = "auto",
    ) -> None:
        self.path = path
        self.labels = labels
        self.names = {"x": x, "y": y, "factors": factors}
        self.channels: Channels = channels
        self.needs_labels = y != "y"
        self.columns: tuple[str, ...] = ()  # of a table
        self._found: dict[str, Held] = {}

    def __repr__(self) -> str:  # the arguments alone, not what was found in the files
        return f"Arrays({self.path!r}, {self.labels!r}, {self.names}, {self.channels!r})"

    # -- what is there: headers alone, and labels --------------------------------------------------

    def look(self, root: Path) -> None:
        """Find the arrays; see :meth:`ImageSource.look`."""
        found = self._find(root)
        for member in (found[name] for name in sorted(found) if name.startswith("x ")):
            shape, kind = self._layout(member), member.dtype.kind
            first = next(iter(found.values()))
            if (shape, kind) != (self._layout(first), first.dtype.kind):
                raise DataError(f"{member} is {member.described}, and {first.name} {first.described}: rows differ")
        first = next(iter(found.values()))
        self._found = found
        self.shape = self._layout(first)
        self.real, self.binary = first.dtype.kind == "f", first.dtype.kind == "b"
        self.gives_away = first.dtype.itemsize * math.prod(self.shape) >= _LARGE_ROW
        self.n_validation = found["x validation"].shape[0] if "x validation" in found else 0
        self.n_classes, self.factors = None, ()
        if "y train" in found:
            (self.n_classes,) = self._values("y")
        elif "factors train" in found:
            self.factors = self._named(root, self._values("factors"))
        self.described = True

    def _find(self, root: Path) -> dict[str, Held]:
        """ "x train", "y test", ... -> the array; "x train" comes first, and is all of x where there is no "x test"."""
        members = self._members(root)
        found: dict[str, Held] = {}
        for what, name in self.names.items():
            if name is None:
                continue
            own: dict[str, Held] = {}
            for part, words in _PARTS.items():
                called = [c for word in words for c in (f"{name}_{word}", f"{word}_{name}") if c in members]
                if len(called) > 1:
                    raise DataError(f"{(root / self.path).absolute()} holds {' and '.join(called)}: one is enough")
                own |= {f"{what} {part}": members[c] for c in called}
            if name in members:
                if own:
                    raise DataError(
                        f"{members[name]}: {name} is there and parts of it too; data.source.{what} says which"
                    )
                own = {f"{what} train": members[name]}
            found |= own
        path = root / self.path
        if "x train" not in found:
            called = self.names["x"]
            raise DataError(
                f"{path.absolute()} holds {', '.join(members) or 'nothing'}, and neither {called} nor {called}_train; "
                "data.source.x says what it is called"
            )
        if "y train" in found and "factors train" in found:
            raise DataError(
                f"{path.absolute()} holds labels and factors: data.source.y=null or data.source.factors=null"
            )
        parts = [part for part in _PARTS if f"x {part}" in found]
        if "validation" in parts and "test" not in parts:
            raise DataError(f"{path.absolute()} holds rows to validate on and none to test on: {', '.join(members)}")
        for what in ("y", "factors"):
            labelled = [part for part in _PARTS if f"{what} {part}" in found]
            if labelled and labelled != parts:
                raise DataError(f"{path.absolute()} holds {self.names[what]} of {labelled}, and x of {parts}")
            for part in labelled:
                labels, rows = found[f"{what} {part}"], found[f"x {part}"]
                if labels.shape[:1] != rows.shape[:1]:
                    raise DataError(f"{labels} is {labels.described}, and x {rows.described}: as many rows are needed")
        return found

    def _members(self, root: Path) -> dict[str, Held]:
        """What the files hold, by name."""
        path = root / self.path
        if path.suffix == ".csv" and self.labels is None:
            return self._columns(path)
        if path.suffix == ".npz":
            if self.labels is not None:
                raise DataError(
                    f"data.source.labels={self.labels}: {path.absolute()} is an archive, which holds its own"
                )
            return dict(members_of(path))
        members: dict[str, Held] = {self.names["x"] or "x": members_of(path)[""]}
        if self.labels is not None:
            members[self.names["y"] or "y"] = members_of(root / self.labels)[""]
        return members

    def _columns(self, path: Path) -> dict[str, Held]:
        """Those of a table."""
        table, label = self._table(path), self.names["y"]
        self.columns = table.columns
        members: dict[str, Held] = {self.names["x"] or "x": Columns(path, "its numbers", table.x)}
        if table.y is not None and label is not None:
            members[label] = Columns(path, label, table.y)
        return members

    def _table(self, path: Path) -> Table:
        return read_table(path, self.names["y"], self.needs_labels)

    def class_names(self, root: Path) -> tuple[str, ...]:
        """The labels of a table, which need not be numbers."""
        path = root / self.path
        return self._table(path).classes if path.suffix == ".csv" and path.is_file() else ()

    def _layout(self, member: Held) -> tuple[int, ...]:
        """The shape of a row: (D,) or (C, H, W)."""
        n, *shape = member.shape or (0,)
        kind, size = member.dtype.kind, member.dtype.itemsize
        if member.dtype.hasobject or not (kind == "b" or (kind == "u" and size == 1) or (kind == "f" and size <= 8)):
            raise DataError(
                f"{member} is {member.described}: x is of uint8 (grey levels), bool (0 or 1), or float16, 32 or 64 "
                "(real numbers); x.astype(...) makes one of the other"
            )
        if len(shape) not in (1, 2, 3) or 0 in (n, *shape):
            raise DataError(f"{member} is {member.described}: x is (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C)")
        if len(shape) == 2:
            return (1, *shape)
        if len(shape) == 3 and self._channels_last(member):
            return (shape[2], *shape[:2])
        return tuple(shape)

    def _channels_last(self, member: Held) -> bool:
        if self.channels != "auto":
            return self.channels == "last"
        first, last = (member.shape[place] <= _MOST_CHANNELS for place in (1, 3))
        if first == last:
            raise DataError(
                f"{member} is {member.described}: it cannot be seen which are the channels; "
                "data.source.channels=first or last says so"
            )
        return last

    def _values(self, what: str) -> list[int]:
        """How many values each column of y or of the factors has."""
        columns = [self._integers(self._found[name], what) for name in self._found if name.startswith(f"{what} ")]
        together = np.concatenate(columns)
        counts = [len(np.unique(column)) for column in together.T]
        for i, count in enumerate(counts):
            if (int(together[:, i].min()), int(together[:, i].max())) != (0, count - 1):
                which = f"{self.names[what]}{f' of column {i}' if what == 'factors' else ''}"
                raise DataError(
                    f"{self._found[f'{what} train']}: {which} has {count:,} values in {together[:, i].min()}.."
                    f"{together[:, i].max()}, and is to count them from 0; np.unique(y, return_inverse=True)[1] does"
                )
        return counts

    def _integers(self, member: Held, what: str) -> NDArray[np.int64]:
        """Labels as (N, 1), factors as (N, F)."""
        n, *shape = member.shape or (0,)
        columns = len(shape) == 1 if what == "factors" else shape in ([], [1])
        if member.dtype.kind not in "iub" or not columns:
            form = "factors are (N, F)" if what == "factors" else "labels are (N,)"
            raise DataError(
                f"{member} is {member.described}: {form}, integers that count from 0; "
                "np.unique(y, return_inverse=True)[1] makes them of anything"
            )
        return member.read().astype(np.int64).reshape(n, -1)

    def _named(self, root: Path, counts: list[int]) -> tuple[Factor, ...]:
        member = self._members(root).get("factor_names")
        names = [f"factor {i}" for i in range(len(counts))] if member is None else [str(name) for name in member.read()]
        if len(names) != len(counts):
            raise DataError(f"{member} has {len(names)} names for {len(counts)} factors")
        return tuple(Factor(name, count) for name, count in zip(names, counts, strict=True))

    # -- what is in it -----------------------------------------------------------------------------

    def load(self, root: Path) -> Splits:
        """Read the arrays; see :meth:`ImageSource.load`."""
        self.look(root)
        train = self._images("train")
        if "x test" not in self._found:
            return self._divided(train)
        if self.n_validation:
            both = (train, self._images("validation"))
            train = Images(torch.cat([part.x for part in both]), _joined([part.y for part in both]))
        return Splits(train, self._images("test"))

    def rows(self, path: Path) -> Tensor:
        """All rows of another file, (N, *shape), those of its splits one after the other. Labels need not be there, and
        the columns of a table are taken by their names.

        Raises:
            DataError: it is missing or damaged, or its rows are not like those of this one.
        """
        label = self.names["y"] if path.suffix == ".csv" else None  # which is no part of x
        other = Arrays(str(path.absolute()), None, self.names["x"] or "x", label, None, self.channels)
        other.needs_labels = False
        other.look(Path())
        x = torch.cat([other._images(name.removeprefix("x ")).x for name in other._found if name.startswith("x ")])
        if self.columns and other.columns:
            if lacks := [name for name in self.columns if name not in other.columns]:
                raise DataError(f"{path.absolute()} has no column {lacks[0]!r}, which the run was trained with")
            return x[:, [other.columns.index(name) for name in self.columns]]
        if (other.shape, other.real, other.binary) != (self.shape, self.real, self.binary):
            kinds = ("real numbers" if s.real else "bits" if s.binary else "bytes" for s in (other, self))
            there, here = (f"{kind} of shape {s.shape}" for kind, s in zip(kinds, (other, self), strict=True))
            raise DataError(f"{path.absolute()}: its rows are {there}, those of the run {here}")
        return x

    def _images(self, part: str) -> Images:
        x = as_tensor(self._checked(self._found[f"x {part}"]))
        if x.ndim == 3:
            x = x.unsqueeze(1)
        elif x.ndim == 4 and self._channels_last(self._found[f"x {part}"]):
            x = x.permute(0, 3, 1, 2).contiguous()
        if (y := self._found.get(f"y {part}")) is not None:
            return Images(x, torch.from_numpy(self._integers(y, "y")[:, 0].copy()))
        if (factors := self._found.get(f"factors {part}")) is not None:
            return Images(x, torch.from_numpy(self._integers(factors, "factors")))
        return Images(x, None)

    def _checked(self, member: Held) -> NDArray[Any]:
        x = member.read()
        if self.real and (bad := int(x.size - np.isfinite(x).sum())):
            raise DataError(
                f"{member}: {bad:,} of {x.size:,} numbers are NaN or infinite, in {rows_with_gaps(x):,} of {len(x):,} "
                "rows; leave these rows out, or fill the numbers in"
            )
        if x.dtype == np.uint8 and int(x.max()) <= 1:
            raise DataError(
                f"{member}: its bytes are all 0 or 1, which as grey levels are black; x.astype(bool) has bits"
            )
        return x

    def _divided(self, images: Images) -> Splits:
        """A tenth for testing: drawn, since rows in the order of a grid of factors have all values at every tenth."""
        n = len(images.x)
        if n < _TEST_EVERY:
            raise DataError(f"{self._found['x train']} has {n} rows: too few to keep a tenth for testing")
        x, y = images.x, images.y
        drawn = torch.randperm(n, generator=fixed_generator("arrays test split"))
        test, train = drawn[: n // _TEST_EVERY].sort().values, drawn[n // _TEST_EVERY :].sort().values
        y_train, y_test = (None if y is None else y.index_select(0, rows) for rows in (train, test))
        if not self.gives_away:
            return Splits(Images(x.index_select(0, train), y_train), Images(x.index_select(0, test), y_test))
        put_in_order(x, torch.cat([train, test]))
        # A copy of the few to test on, so that all others can be let go.
        return Splits(Images(x[: len(train)], y_train), Images(x[len(train) :].clone(), y_test))


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None
