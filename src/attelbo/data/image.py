"""Images on the resident path: loaded once, kept on the training device, gathered by row indices.

The loaders yield blocks of row indices. In training the stepper walks through a block with ``minibatches`` and
``materialize``; everywhere else, and with ``minibatches_per_block=0``, a block holds one minibatch and
arrives in the step as a ``Batch``.

Random parts (the training rows' dynamic binarization and flips) use the default generator of the device at
the moment a batch is made: whoever trains seeds it for each step. Everything else that is random has a
fixed seed of its own, the same for every run: which rows are kept for validation, the pixels of static
binarization, and the pixels of validation and test images under dynamic binarization, so that two
evaluations, and two runs, compare on the same binary images.

Shapes: B batch, (C, H, W) image, S minibatches in a block, N rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from attelbo.building import Spec, build
from attelbo.data.batch import Batch, Block, DataSpec, Split
from attelbo.data.binarize import draw_bits, threshold_bits
from attelbo.data.labels import UNLABELLED, keep_labels
from attelbo.data.loader import IndexLoader, Position, rows_per_rank, training_order
from attelbo.data.resident import ResidentSplit
from attelbo.data.sources.base import Images, ImageSource
from attelbo.errors import ConfigError
from attelbo.seeding import derive_seed

Binarization = Literal["none", "threshold", "static", "dynamic"]

Splits = dict[Split, ResidentSplit]

_FIXED = 0
"""The seed of what is the same in every run."""


class ImageDataModule(LightningDataModule):
    """An image data set, split, binarized and resident.

    Args:
        name: the data set's name in reports.
        source: the class in ``attelbo.data.sources`` that reads it.
        root: the folder of data sets.
        seed: the run's seed; the order of the training rows follows from it.
        batch_size: rows in a training minibatch, per device.
        eval_batch_size: rows in a validation or test minibatch, per device.
        validation_size: training rows that are set aside for validation.
        binarize: ``none`` (grey levels), ``threshold`` (at one half), ``static`` (drawn once, Larochelle & Murray
            2011) or ``dynamic`` (drawn anew whenever a training row is used, Salakhutdinov & Murray 2008).
        flip: mirror training images left to right with probability one half.
        drop_last: leave out the training rows at the end of an epoch that do not fill a minibatch.
        minibatches_per_block: training minibatches in one Lightning step; 0: plain Lightning batches.
        train_size: use only so many of the training rows (to debug, or to learn from little); all if None.
        n_labels: so many of these rows keep their label, balanced over the classes and the same in every run; that of
            the others is -1. All if None.

    Raises:
        ValueError: if a number is out of range, or ``binarize`` is asked for data that are binary already.
    """

    def __init__(
        self,
        name: str,
        source: Spec,
        root: str,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        validation_size: int,
        binarize: Binarization = "none",
        flip: bool = False,
        drop_last: bool = False,
        minibatches_per_block: int = 16,
        train_size: int | None = None,
        n_labels: int | None = None,
    ) -> None:
        super().__init__()
        _at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, validation_size=validation_size)
        _at_least(0, minibatches_per_block=minibatches_per_block)
        if train_size is not None:
            _at_least(1, train_size=train_size)
        self.source: ImageSource = build(source)
        if n_labels is not None:
            _at_least(1, n_labels=n_labels)
            if self.source.n_classes is None:
                raise ValueError(f"n_labels must be null for {name}, which has no classes, got {n_labels}")
        if self.source.packed and binarize != "none":
            raise ValueError(f"binarize must be 'none' for {name}, whose pixels are 0 or 1 already, got {binarize!r}")
        binary = binarize != "none" or self.source.packed
        kind = "binary" if binary else "levels"
        self.spec = DataSpec(name, self.source.shape, kind, self.source.n_classes, n_labels)
        self.root = Path(root)
        self.seed = seed
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.validation_size = validation_size
        self.binarize: Binarization = binarize
        self.flip = flip
        self.drop_last = drop_last
        self.minibatches_per_block = minibatches_per_block
        self.train_size = train_size
        self._splits: Splits = {}
        self._loaded: dict[str, Splits] = {}

    # Files to tensors

    def prepare_data(self) -> None:
        """Download what is missing.

        Raises:
            DataError: if that fails.
        """
        self.source.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Load, split and binarize; once, however often it is called.

        Raises:
            DataError: if a file is missing or damaged.
            ConfigError: if ``validation_size`` leaves no row for training, or ``n_labels`` takes more than a class has.
        """
        if not self._splits:
            if self._content not in self._loaded:
                self._loaded.clear()  # one set at a time is enough to keep in memory
                self._loaded[self._content] = self._load()
            self._splits = self._loaded[self._content]

    def share(self, loaded: dict[str, Splits]) -> None:
        """Load nothing that the module before has put into ``loaded``, and put into it what is loaded: to be called
        before ``setup``, on modules that train on one device."""
        self._loaded = loaded

    @property
    def _content(self) -> str:
        """What decides the bytes of the splits."""
        source = (type(self.source).__qualname__, sorted(vars(self.source).items()))
        return repr(
            (source, self.root, self.binarize, self.flip, self.validation_size, self.train_size, self.spec.n_labels)
        )

    def _load(self) -> Splits:
        train, test = self.source.load(self.root)
        n = len(train.x)
        if self.validation_size >= n:
            raise ConfigError(
                f"data.validation_size must be below {n:,}, the training rows of {self.spec.name}, "
                f"got {self.validation_size:,}"
            )
        permutation = torch.randperm(n, generator=_fixed_generator("validation split"))
        validation_rows = permutation[: self.validation_size]
        train_rows = permutation[self.validation_size :][: self.train_size]
        evaluated = self._evaluated(train, "train")
        dynamic = self.binarize == "dynamic"
        shown = train if dynamic else evaluated
        return {
            "train": self._resident(self._few_labels(shown, train_rows), train_rows, draw=dynamic, flip=self.flip),
            "validation": self._resident(evaluated, validation_rows),
            "test": self._resident(self._evaluated(test, "test")),
        }

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each split as it is stored: its rows, their order, labels and fixed binarization."""
        return {name: self._split(name).checksum() for name in ("train", "validation", "test")}

    def n_rows(self, split: Split) -> int:
        """Rows of a split."""
        return len(self._split(split))

    def _evaluated(self, images: Images, part: str) -> Images:
        """The images as an evaluation sees them: drawn for the whole part, so a row's pixels depend on no option."""
        if self.binarize == "none":
            return images
        if self.binarize == "threshold":
            return images._replace(x=threshold_bits(images.x))
        return images._replace(x=draw_bits(images.x, _fixed_generator(f"binarization of {part}")))

    def _few_labels(self, images: Images, rows: Tensor) -> Images:
        """The images with ``n_labels`` of the labels of ``rows``, and none of the others'."""
        n_labels, n_classes = self.spec.n_labels, self.source.n_classes
        if n_labels is None or n_classes is None:
            return images
        try:
            kept = keep_labels(images.y[rows], n_labels, n_classes, _fixed_generator("labels"))
        except ValueError as error:
            raise ConfigError(f"data.{error} training rows of {self.spec.name}") from error
        return images._replace(y=torch.full_like(images.y, UNLABELLED).index_copy_(0, rows, kept))

    def _resident(
        self, images: Images, rows: Tensor | None = None, draw: bool = False, flip: bool = False
    ) -> ResidentSplit:
        x, y = images if rows is None else (images.x.index_select(0, rows), images.y.index_select(0, rows))
        scale = 255 if self.spec.kind == "levels" else 1
        return ResidentSplit(x, y, scale=scale, draw=draw, flip=flip, bits=self.source.packed)

    def _split(self, split: Split) -> ResidentSplit:
        self.setup()
        return self._splits[split]

    # Tensors to batches

    def materialize(self, index: Tensor, split: Split) -> Batch:
        """The rows ``index`` (B,) of a split as a batch on the index's device: one gather, batched transforms."""
        return self._split(split).materialize(index)

    def minibatches(self, block: Block) -> Sequence[Tensor]:
        """The row indices of each minibatch in a block, (<= batch_size,) each."""
        return block.index.split(block.batch_size)

    # Lightning's hooks

    def train_dataloader(self) -> IndexLoader:
        """Blocks of rows in the order of (seed, epoch), from where the run stands."""
        rank, world_size, device = self._place()
        n_rows = self.n_rows("train")
        return IndexLoader(
            "train",
            order=lambda epoch: training_order(n_rows, self.seed, epoch, rank, world_size).to(device),
            n_rows=rows_per_rank(n_rows, world_size),
            batch_size=self.batch_size,
            minibatches=max(self.minibatches_per_block, 1),
            drop_last=self.drop_last,
            position=self._position,
        )

    def val_dataloader(self) -> IndexLoader:
        """One minibatch in a block, in order, every row once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> IndexLoader:
        """One minibatch in a block, in order, every row once."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> IndexLoader:
        rank, world_size, device = self._place()
        # Not padded: a row counted twice would falsify the mean.
        rows = torch.arange(rank, self.n_rows(split), world_size, device=device)
        return IndexLoader(split, order=lambda _: rows, n_rows=len(rows), batch_size=self.eval_batch_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a block's indices; Lightning's walk through nested containers is not needed."""
        return batch._replace(index=batch.index.to(device)) if isinstance(batch, Block) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make a batch of a block that holds one minibatch; blocks of several are left to the stepper."""
        if isinstance(batch, Block) and (batch.split != "train" or self.minibatches_per_block == 0):
            return self.materialize(batch.index, batch.split)
        return batch

    def _position(self) -> Position:
        """Epoch and the blocks of it that are done, from Lightning's progress counters, which checkpoints hold.

        ``ready`` counts the blocks handed to the step. It is asked before the first block of an iteration is
        drawn, when a resumed run has set it to the completed ones and a new epoch has set it to 0.
        """
        if self.trainer is None:
            return 0, 0
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _place(self) -> tuple[int, int, torch.device]:
        """Rank, number of ranks and device; one process on the CPU while no trainer has taken the module."""
        if self.trainer is None:
            return 0, 1, torch.device("cpu")
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.strategy.root_device


def _fixed_generator(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(_FIXED, purpose))


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
