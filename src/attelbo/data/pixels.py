"""Images as functions from places to colors, of which some pixels are known: image completion.

Source: Garnelo et al. 2018, "Conditional Neural Processes" (arXiv:1807.01613), section 4.2.

A training image is looked at elsewhere whenever it is used; validation and test images always at the same pixels, the
same in every run.

Shapes: B images (C, H, W), N pixels of one.
"""

from typing import Any, Unpack

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.data.batch import Batch, DataSpec, Split
from attelbo.data.binarize import Binarization
from attelbo.data.image import ImageDataModule
from attelbo.data.module import Splits, fixed_generator
from attelbo.data.options import ResidentOptions
from attelbo.data.padded import compact_dtype
from attelbo.data.resident import ResidentSplit
from attelbo.data.sources.base import ImageSource
from attelbo.data.tasks.functions import Sizes

CPU = torch.device("cpu")


class PixelDataModule(ImageDataModule):
    """An image data set whose rows are functions: x places (row, column) in [-1, 1]^2, y colors.

    Args:
        name: the data set's name in reports.
        source: as in :class:`ImageDataModule`.
        validation_size: training rows that are set aside for validation.
        max_points: N, pixels of context and targets together; null: all.
        min_context: pixels of the smallest context.
        min_target: of the fewest targets.
        binarize: as in :class:`ImageDataModule`.
        train_size: use only so many of the training rows; all if None.
        options: those of :class:`~attelbo.data.options.ResidentOptions`.

    Raises:
        ValueError: if a number is out of range, or there are fewer pixels than points.
    """

    def __init__(
        self,
        name: str,
        source: Spec | ImageSource,
        *,
        validation_size: int,
        max_points: int | None = None,
        min_context: int = 3,
        min_target: int = 3,
        binarize: Binarization = "none",
        train_size: int | None = None,
        **options: Unpack[ResidentOptions],
    ) -> None:
        super().__init__(
            name,
            source,
            validation_size=validation_size,
            binarize=binarize,
            train_size=train_size,
            **options,
        )
        images = self._of_images
        if len(images.shape) != 3:
            raise ValueError(f"source of {name} has no images, but rows of {images.shape[0]} numbers")
        channels, height, width = images.shape
        n_pixels = height * width
        self.sizes = Sizes(n_pixels if max_points is None else max_points, min_context, min_target)
        self.sizes.check()
        if self.sizes.max_points > n_pixels:
            raise ValueError(f"max_points must be at most {n_pixels}, the pixels of {name}, got {max_points}")
        target = DataSpec("colors", (self.sizes.max_points, channels), images.kind)
        self._functions = DataSpec(name, (self.sizes.max_points, 2), "function", target=target)

    @property
    def spec(self) -> DataSpec:
        """That of the functions."""
        return self._functions

    def images(self, index: Tensor, split: Split) -> Tensor:
        """The images (B, C, H, W) that the rows ``index`` (B,) of a split are functions of, on the index's device."""
        rows = self._split(split)
        assert isinstance(rows, PixelSplit)
        return rows.images.materialize(index).x

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.sizes

    def _load(self) -> Splits:
        images = super()._load()
        return {split: PixelSplit(images[split], self.sizes, self._kept(split, len(images[split]))) for split in images}

    def _trained(self) -> ResidentSplit:
        images = super()._trained()
        return PixelSplit(images, self.sizes, self._kept("trained", len(images)))

    def _kept(self, split: Split, n: int) -> tuple[Tensor, Tensor] | None:
        """Which pixels of n images are looked at, (n, N), and the segments that they are in, (n, N)."""
        if split == "train":
            return None
        _, height, width = self.source.shape
        generator = fixed_generator(f"{split} pixels")
        return some_pixels(n, height * width, self.sizes, CPU, generator)


class PixelSplit(ResidentSplit):
    """Images, and where they are looked at.

    Args:
        images: the split of the images.
        sizes: numbers of context and target pixels.
        kept: which pixels of each image, and whether they are context or targets; None: drawn anew each time.
    """

    def __init__(self, images: ResidentSplit, sizes: Sizes, kept: tuple[Tensor, Tensor] | None) -> None:
        self.images = images
        self.sizes = sizes
        self.keeps = kept is not None
        if kept is not None:
            pixels, segments = kept
            self.pixels, self.segments = pixels.to(compact_dtype(int(pixels.max()) + 1)), segments

    def __len__(self) -> int:
        return len(self.images)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        images = self.images.materialize(index).x
        y = images.flatten(2).mT  # (B, H W, C)
        if self.keeps:
            pixels, segments = self.pixels.index_select(0, index).long(), self.segments.index_select(0, index)
        else:
            pixels, segments = some_pixels(len(index), y.shape[1], self.sizes, index.device)
        x = pixel_places(*images.shape[-2:], device=index.device)
        return Batch(x[pixels], torch.take_along_dim(y, pixels.unsqueeze(-1), 1), index, segments.long())

    def checksum(self) -> str:
        """That of the images: the rest follows from it."""
        return self.images.checksum()


def some_pixels(
    n: int, n_pixels: int, sizes: Sizes, device: torch.device, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """N different pixels for each of n images, in random order, (n, N) int64, and the segments that they are in, (n, N)
    int8."""
    order = torch.rand(n, n_pixels, device=device, generator=generator).argsort(1)
    return order[:, : sizes.max_points], sizes.draw(n, device, generator)


def pixel_places(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of each pixel, from -1 at the first to 1 at the last: (H W, 2)."""
    rows, columns = (torch.linspace(-1, 1, size, device=device) for size in (height, width))
    return torch.cartesian_prod(rows, columns)
