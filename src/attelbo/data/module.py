"""What all resident data have in common: loaded once, kept on the training device, gathered by row indices.

The loaders yield blocks of row indices. In training the stepper walks through a block with ``minibatches`` and
``materialize``; everywhere else, and with ``minibatches_per_block=0``, a block holds one minibatch and
arrives in the step as a ``Batch``.

What is random about a training batch uses the default generator of the device at the moment the batch is made: whoever
trains seeds it for each step. The order of the training rows is a function of (seed, epoch). Everything else that is
random, such as which rows are kept for validation, has a fixed seed of its own, the same for every run, so that two
evaluations, and two runs, compare on the same rows.

Shapes: B batch, S minibatches in a block, N rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from attelbo.building import blamed, build
from attelbo.checks import check_at_least
from attelbo.data.batch import Batch, Block, DataSpec, Evaluated, Split
from attelbo.data.loader import IndexLoader, Position, cut_from_passes, rows_per_rank, training_order
from attelbo.data.resident import ResidentSplit
from attelbo.errors import ConfigError
from attelbo.seeding import derive_seed

Splits = dict[Split, ResidentSplit]

_FIXED = 0
"""The seed of what is the same in every run."""


class ResidentDataModule(LightningDataModule, ABC):
    """A data set, split and resident.

    Args:
        root, seed, batch_size, eval_batch_size, drop_last, minibatches_per_block: see
            :class:`~attelbo.data.options.ResidentOptions`.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        root: str,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        drop_last: bool = False,
        minibatches_per_block: int = 16,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_at_least(0, minibatches_per_block=minibatches_per_block)
        self.root = Path(root)
        self.seed = seed
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.drop_last = drop_last
        self.minibatches_per_block = minibatches_per_block
        self.steps_per_epoch: int | None = None
        """Minibatches in an epoch: passes over the training rows follow each other, each without the rows that fill no
        minibatch, and epochs are cut from them. None: an epoch is one pass."""
        self._splits: Splits = {}
        self._loaded: dict[str, Splits] = {}

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """What a model is built and checked for. Of text it is known once the corpus was read, which this does.

        Raises:
            DataError: a file that must be read is missing or damaged.
        """

    # Files to tensors

    def setup(self, stage: str | None = None) -> None:
        """Load and split; once, however often it is called.

        Raises:
            DataError: if a file is missing or damaged.
            ConfigError: if the files are not large enough for what is asked of them.
        """
        if not self._splits:
            self._splits = self._loaded.get(self._key) or self._keep(self._load())

    @abstractmethod
    def _load(self) -> Splits:
        """Read the files and split them."""

    @abstractmethod
    def _content(self) -> tuple[Any, ...]:
        """What decides the bytes of the splits, beside the class and the folder."""

    @property
    def row_tokens(self) -> int | None:
        """The tokens of a row, where all rows have as many; else None."""
        return None

    @property
    def shifted(self) -> Mapping[str, ResidentSplit]:
        """Rows of other distributions, by name, that a trained model is tested on too."""
        return {}

    @property
    def length(self) -> int | None:
        """The length of a row, where the data can be had in rows of other lengths (``at_length``); else None."""
        return None

    def at_length(self, length: int, split: Evaluated) -> Self:
        """The same data in rows of another length; only this split of it can be used.

        Raises:
            ValueError: there are no rows of this length.
        """
        raise ValueError(f"rows of {self.spec.name} have one length")

    @property
    def _key(self) -> str:
        return repr((type(self).__qualname__, self.root, self._content()))

    def _keep(self, splits: Splits) -> Splits:
        self._loaded.clear()  # one set at a time is enough to keep in memory
        self._loaded[self._key] = splits
        return splits

    def share(self, loaded: dict[str, Splits]) -> None:
        """Share splits with other modules through ``loaded``: what is in it is not loaded again, what is loaded is put
        into it. To be called before ``setup``, on modules that train on one device."""
        self._loaded = loaded
        if self._splits:  # a vocabulary was asked for before
            self._splits = loaded.get(self._key) or self._keep(self._splits)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each split as it is stored: its rows, their order, and what is known of them."""
        return {name: self._split(name).checksum() for name in ("train", "validation", "test")}

    def n_rows(self, split: Split) -> int:
        """Rows of a split."""
        return len(self._split(split))

    def _split(self, split: Split) -> ResidentSplit:
        self.setup()
        if split == "trained" and split not in self._splits:  # few ask for it
            self._splits[split] = self._trained()
        if split not in self._splits:
            raise ValueError(f"split must be one of {', '.join(self._splits)}, got {split!r}")
        return self._splits[split]

    def _trained(self) -> ResidentSplit:
        """The training rows as an evaluation sees them: as they are, where nothing about them is random."""
        return self._splits["train"]

    # What a run directory keeps

    def save_state(self, folder: Path) -> None:
        """Write into a run directory what its model needs when the data are not there, such as a vocabulary."""

    def load_state(self, folder: Path) -> None:
        """Load what ``save_state`` wrote; to be called before ``spec`` is used."""

    # Tensors to batches

    def materialize(self, index: Tensor, split: Split) -> Batch:
        """The rows ``index`` (B,) of a split as a batch on the index's device: one gather, batched transforms."""
        return self._split(split).materialize(index)

    def alike(self, index: Tensor, split: Split) -> Tensor:
        """Rows (B,) of a split, neighbours being of similar length: batches of them hold little padding."""
        return self._split(split).alike(index)

    def repeats(self, split: Split) -> bool:
        """Whether the same rows of a split are the same batch whenever they are asked for."""
        return self._split(split).repeats

    def shown(self, x: Tensor) -> Tensor:
        """Images as a model sees or makes them, (N, C, H, W), converted for display: in [0, 1]."""
        return x

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in y, or their numbers where they have no names; None where there are no classes."""
        return None if self.spec.n_classes is None else tuple(map(str, range(self.spec.n_classes)))

    def restored(self, x: Tensor) -> Tensor:
        """Rows as a model sees or makes them in the units of the files, where they have others."""
        return x

    def crops(self, device: torch.device) -> bool:
        """Whether the shape of a batch on this device depends on which rows are in it."""
        return self._split("train").crops(device)

    def minibatches(self, block: Block) -> Sequence[Tensor]:
        """The row indices of each minibatch in a block, (<= batch_size,) each."""
        return block.index.split(block.batch_size)

    # Lightning's hooks

    def train_dataloader(self) -> IndexLoader:
        """Blocks of rows in the order of (seed, epoch), from where the run stands."""
        rank, world_size, device = self._place()
        n_rows = rows_per_rank(self.rows_per_epoch, world_size)
        return IndexLoader(
            "train",
            order=lambda epoch: self._rows_of(epoch, rank, world_size).to(device),
            n_rows=n_rows if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_size,
            batch_size=self.batch_size,
            minibatches=max(self.minibatches_per_block, 1),
            drop_last=self.drop_last,
            position=self._position,
        )

    def _rows_of(self, epoch: int, rank: int, world_size: int) -> Tensor:
        """A rank's rows of an epoch, which may be a part of a pass, or several."""

        def rows_of(turn: int) -> Tensor:
            return self.training_rows(turn, rank, world_size)

        steps, per_pass = self.steps_per_epoch, rows_per_rank(self.rows_per_epoch, world_size) // self.batch_size
        if steps is None:
            return rows_of(epoch)
        return cut_from_passes(rows_of, per_pass, epoch * steps, steps, self.batch_size)

    @property
    def takes_few(self) -> bool:
        """Whether a minibatch may hold fewer rows than others: the last one of a pass."""
        return not self.drop_last and self.steps_per_epoch is None

    @property
    def rows_per_epoch(self) -> int:
        """Training rows in a pass, of all ranks together: each one once, unless a subclass says otherwise."""
        return self.n_rows("train")

    def training_rows(self, epoch: int, rank: int, world_size: int) -> Tensor:
        """A rank's training rows in the order of an epoch, ``rows_per_rank(rows_per_epoch, world_size)`` int64 on the
        CPU: a function of the seed."""
        return training_order(self.rows_per_epoch, self.seed, epoch, rank, world_size)

    def val_dataloader(self) -> IndexLoader:
        """One minibatch in a block, in order, every row once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> IndexLoader:
        """One minibatch in a block, in order, every row once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> IndexLoader:
        """The test rows, as :meth:`test_dataloader` yields them."""
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


def fixed_generator(purpose: str) -> torch.Generator:
    """A generator that draws the same in every run."""
    return torch.Generator().manual_seed(derive_seed(_FIXED, purpose))


def build_part(name: str, spec: Any) -> Any:
    """Build a part of a data module from its node; anything else is a part that was built already, in Python.

    Raises:
        ValueError: one of its arguments is out of range, or it cannot be built at all; the message begins with
            ``name``, as the key does.
    """
    if not isinstance(spec, Mapping):
        return spec
    try:
        return build(spec)
    except ConfigError as error:
        raise ValueError(f"{name}: {error}") from error
    except TypeError as error:
        raise ValueError(f"{name}: {blamed(error, spec['_target_'])}") from error
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error
