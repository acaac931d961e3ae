"""Images on the resident path: explicit binarization, flips, crops, few labels.

Random parts (the training rows' dynamic binarization, flips and crops) use the default generator, as everything random
about a training batch does. The pixels of static binarization, and those of validation and test images under dynamic
binarization, have a fixed seed of their own.

Shapes: B batch, (C, H, W) image, N rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import Batch, DataSpec, Split
from attelbo.data.binarize import Binarization, draw_bits, threshold_bits
from attelbo.data.labels import UNLABELLED, Classes, keep_labels
from attelbo.data.loader import spread_rows
from attelbo.data.module import ResidentDataModule, Splits, build_part, fixed_generator
from attelbo.data.nuisances import Nuisance
from attelbo.data.options import ResidentOptions
from attelbo.data.pairs import Pairing, Pairs, check_pairs, pairing_of
from attelbo.data.pictures import decode_pictures
from attelbo.data.resident import ImageSplit, ResidentSplit
from attelbo.data.rows import one_after_the_other, put_in_order
from attelbo.data.sources.base import Images, ImageSource, checked
from attelbo.data.text.vocabulary import FILE, load_vocabularies, save_vocabularies
from attelbo.errors import ConfigError, UserError

_TENTH = 10


class ImageDataModule(ResidentDataModule):
    """An image data set, split, binarized and resident.

    Args:
        name, source, validation_size, binarize, flip, crop, train_size, n_labels, pairs, nuisance: see
            :class:`~attelbo.data.options.ImageOptions`.
        options: those of :class:`~attelbo.data.options.ResidentOptions`.

    Raises:
        ValueError: if a number is out of range, ``binarize`` is set for data that are binary already, or the source is
            not an ``ImageSource``.
    """

    _takes_real = False

    def __init__(
        self,
        name: str,
        source: Spec | ImageSource,
        *,
        validation_size: int | None = None,
        binarize: Binarization = "none",
        flip: bool = False,
        crop: int = 0,
        train_size: int | None = None,
        n_labels: int | None = None,
        pairs: Pairs | None = None,
        nuisance: Nuisance = "none",
        **options: Unpack[ResidentOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(0, crop=crop)
        check_at_least(1, validation_size=validation_size, train_size=train_size, n_labels=n_labels)
        self.source: ImageSource = build_part("source", source)
        if not isinstance(self.source, ImageSource):
            raise ValueError(
                "source must be an attelbo.data.sources.ImageSource, or a mapping with the _target_ of one, "
                f"got {source!r}"
            )
        if self.source.described and not hasattr(self.source, "shape"):
            raise ValueError(f"source must have a shape, (C, H, W); {type(self.source).__name__} has none")
        self._name = name
        self.validation_size = validation_size
        self.binarize: Binarization = binarize
        self.flip = flip
        self.crop = crop
        self.train_size = train_size
        self.n_labels = n_labels
        self.pairs: Pairs | None = pairs
        self._pairing: Pairing | None = None
        self.nuisance: Nuisance = nuisance
        self._classes = Classes()
        self._described: DataSpec | None = self._describe() if self.source.described else None

    def _describe(self) -> DataSpec:
        """The specification, of a source that is described.

        Raises:
            ValueError: an argument does not go with it.
        """
        name, source = self._name, self.source
        if source.real and not self._takes_real:
            raise ValueError(f"source of {name} has real numbers, which attelbo.data.ArrayDataModule takes")
        if self.n_labels is not None and source.n_classes is None:
            raise ValueError(f"n_labels must be null for {name}, which has no classes, got {self.n_labels}")
        if self.pairs is not None:
            check_pairs(self.pairs, sum(factor.n_values > 1 for factor in source.factors), name)
        if source.binary and self.binarize != "none":
            raise ValueError(
                f"binarize must be 'none' for {name}, whose pixels are 0 or 1 already, got {self.binarize!r}"
            )
        bits, shape = source.binary or self.binarize != "none", source.shape
        kind = "real" if source.real else "binary" if bits else "levels"
        if self.nuisance != "none":
            if kind != "binary" or len(shape) != 3 or shape[0] != 1:
                raise ValueError(
                    f"nuisance must be 'none' for {name}, whose rows are not images in black and white, "
                    f"got {self.nuisance!r}"
                )
            shape, kind = (3, *shape[1:]), "levels"
        return DataSpec(
            *(name, shape, kind, source.n_classes, self.n_labels),
            n_objects=source.n_objects,
            pairs=self.pairs is not None,
            how_labelled=source.how_labelled,
        )

    @property
    def spec(self) -> DataSpec:
        """Known before any file is read, except for sources that have to look into theirs.

        Raises:
            DataError: such a file is missing or damaged.
            ConfigError: an argument does not go with what is in it.
        """
        return self._of_images

    @property
    def _of_images(self) -> DataSpec:
        """What the images are like, whatever rows a subclass makes of them."""
        if self._described is None:
            self.source.look(self.root)
            try:
                self._described = self._describe()
            except ValueError as error:
                raise ConfigError(f"data.{error}") from error
        return self._described

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """As a run directory keeps them, or as they are in the files."""
        numbers = super().class_names
        return numbers and (self._classes.names or self.source.class_names(self.root) or numbers)

    # What a run directory keeps

    def save_state(self, folder: Path) -> None:
        """Keep the names of the classes, where they have any."""
        if names := self.source.class_names(self.root):
            save_vocabularies(folder, classes=Classes(names))

    def load_state(self, folder: Path) -> None:
        """Load them."""
        if (folder / FILE).is_file():
            load_vocabularies(folder, classes=self._classes)

    # Pictures that are in no split

    def read(self, files: Sequence[Path]) -> Tensor:
        """Pictures that are in none of the splits, as an evaluation would see them: the middle of each in the shape of
        the data, binarized as those are, (n, C, H, W).

        Raises:
            UserError: the data are not images of bytes.
            DataError: a file is not a picture.
        """
        spec = self.spec
        if spec.kind == "real" or spec.row != "image" or spec.shape[0] not in (1, 3):
            raise UserError(f"{self._name} has no images that a picture could be one of; split=test has its rows")
        x = decode_pictures(files, spec.shape, self.source.crop)
        return self._own(threshold_bits(x) if self.source.binary and self.nuisance == "none" else x)

    def _own(self, x: Tensor) -> Tensor:
        """Bytes that are in none of the splits, (n, C, H, W) or (n, D), as an evaluation would see them."""
        x = x if self.nuisance != "none" else self._evaluated(Images(x, None), "own pictures").x
        return ImageSplit(x, None, scale=255 if self.spec.kind == "levels" else 1).materialize(torch.arange(len(x))).x

    # Pairs of rows

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if self.pairs is not None and self._pairing is None:
            self._pairing = pairing_of(self._splits["train"], self.pairs, self._name)

    def materialize(self, index: Tensor, split: Split) -> Batch:
        batch = super().materialize(index, split)
        if self._pairing is None or split != "train":
            return batch
        return batch._replace(partner=super().materialize(self._pairing.partners(index), split).x)

    # Files to tensors

    def prepare_data(self) -> None:
        """Download what is missing.

        Raises:
            DataError: if that fails.
        """
        self.source.prepare(self.root)

    def pixel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over all training images, as they are stored: (C,) each, float64,
        where the model sees numbers from 0 to 1.

        Raises:
            ConfigError: the images are not of bytes.
        """
        return self._pixels("model.standardize is").moments()

    def mean(self) -> Tensor:
        """The mean of the training images, as they are stored, (C, H, W), float64, where the model sees numbers from 0
        to 1.

        Raises:
            ConfigError: the images are not of bytes.
        """
        return self._pixels("model.likelihood.base_rates are").mean()

    def _pixels(self, asked: str) -> ImageSplit:
        split = self._split("train")
        if not isinstance(split, ImageSplit):
            raise ConfigError(f"{asked} of pixels, {self._name} has real numbers: data.standardize=each")
        if split.nuisance != "none":
            raise ConfigError(f"{asked} of pixels that are there: not with data.nuisance, which is drawn")
        return split

    @property
    def _moves(self) -> dict[str, Any]:
        """What is done to a training image whenever it is used."""
        return {"flip": self.flip, "crop": self.crop}

    def _content(self) -> tuple[Any, ...]:
        rows = self.validation_size, self.train_size, self.n_labels
        return self.source, self.binarize, self._moves, rows, self.nuisance

    def _load(self) -> Splits:
        train, test = checked(self.source, self.root)
        validation_rows, train_rows = self._divide(len(train.x))
        train, (train_rows, validation_rows), views = self._in_order(train, [train_rows, validation_rows])
        evaluated, dynamic = self._evaluated(train, "train"), self.binarize == "dynamic"
        shown = self._few_labels(train if dynamic else evaluated, train_rows)
        shown = shown._replace(segments=None)  # nobody is to learn from them
        return {
            "train": self._resident(shown, train_rows, views, draw=dynamic, **self._moves),
            "validation": self._resident(evaluated, validation_rows, views, purpose="validation"),
            "test": self._resident(self._evaluated(test, "test"), purpose="test"),
        }

    def _trained(self) -> ResidentSplit:
        """Not moved, drawn once as validation rows are, and with all of their labels and segments."""
        train, _ = self.source.load(self.root)
        _, rows = self._divide(len(train.x))
        train, (rows,), views = self._in_order(train, [rows])
        return self._resident(self._evaluated(train, "train"), rows, views, purpose="trained")

    def _in_order(self, images: Images, parts: list[Tensor]) -> tuple[Images, list[Tensor], bool]:
        """The images with the rows of each part one after the other, where these are then, and true; both as they are,
        and false, where copies of the parts take less memory or the source keeps what it has loaded."""
        x, y, segments = images
        n_used = sum(map(len, parts))
        if not self.source.gives_away or self.binarize != "none" or segments is not None or 2 * n_used < len(x):
            return images, parts, False
        order = one_after_the_other(parts, len(x))
        put_in_order(x, order)
        places = list(torch.arange(n_used).split([len(part) for part in parts]))
        return Images(x, None if y is None else y.index_select(0, order)), places, True

    def _divide(self, n: int) -> tuple[Tensor, Tensor]:
        """Rows for validation, all over a published set of them, and those to train on, shuffled for ``train_size``."""
        size, published, name = self.validation_size, self.source.n_validation, self._name
        if size is None:
            size = published or max(1, n // _TENTH)
        if size > (published or n - 1):
            least = f"at most {published:,}, the validation" if published else f"below {n:,}, the training"
            raise ConfigError(f"data.validation_size must be {least} rows of {name}, got {size:,}")
        rows = torch.randperm(n - published, generator=fixed_generator("validation split"))
        if published:
            return n - published + spread_rows(size, published), rows[: self.train_size]
        return rows[:size], rows[size:][: self.train_size]

    def _evaluated(self, images: Images, part: str) -> Images:
        """The images as an evaluation sees them: drawn for the whole part, so a row's pixels depend on no option."""
        if self.binarize == "none":
            return images
        if self.binarize == "threshold":
            return images._replace(x=threshold_bits(images.x))
        return images._replace(x=draw_bits(images.x, fixed_generator(f"binarization of {part}")))

    def _few_labels(self, images: Images, rows: Tensor) -> Images:
        """The images with ``n_labels`` of the labels of ``rows``, and none of the others'."""
        n_labels, n_classes = self.n_labels, self.source.n_classes
        if n_labels is None or n_classes is None or images.y is None:
            return images
        try:
            kept = keep_labels(images.y[rows], n_labels, n_classes, fixed_generator("labels"))
        except ValueError as error:
            raise ConfigError(f"data.{error} training rows of {self._name}") from error
        return images._replace(y=torch.full_like(images.y, UNLABELLED).index_copy_(0, rows, kept))

    def _resident(
        self, images: Images, rows: Tensor | None = None, views: bool = False, draw: bool = False, **options: Any
    ) -> ImageSplit:
        """The images, those of these rows; ``views``: which follow each other, uncopied; ``draw``: binarized anew."""

        def taken(t: Tensor, rows: Tensor) -> Tensor:
            return t[int(rows[0]) : int(rows[0]) + len(rows)] if views else t.index_select(0, rows)

        x, y, segments = (t if t is None or rows is None else taken(t, rows) for t in images)
        assert x is not None
        are_bits = self.source.binary or (self.binarize != "none" and not draw)
        options |= {"bits": self.source.packed, "segments": segments, "nuisance": self.nuisance}
        return ImageSplit(x, y, scale=1 if are_bits else 255, draw=draw, **options)
