"""What a data module hands over.

Shapes: B batch, (C, H, W) image, T tokens, U tokens of a target sentence, N elements of a set, D numbers each, S
minibatches in a block, F factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

DataKind = Literal["binary", "levels", "real", "tokens", "set", "function"]
Evaluated = Literal["trained", "validation", "test"]
"""Splits with nothing random in them. ``trained``: the training rows as an evaluation sees them."""
Split = Literal["train"] | Evaluated
"""What is random about the rows of ``train`` is drawn anew whenever they are used."""

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Tokens of every vocabulary that pads: padding, beginning and end of a sentence, unknown word."""
IGNORE = -1
"""In y, where no token is to be predicted; in ``segments``, where there is padding."""
CONTEXT, TARGET = 0, 1
"""In ``segments``, which points of a function are known, and which are asked for."""


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What is known about a data set without its rows: enough to build and check a model."""

    name: str
    shape: tuple[int, ...]
    """The shape of one x: (C, H, W), (D,) of vectors, (T,) tokens, (N, D) of a set or of the places of a function; T
    and N of the longest."""
    kind: DataKind
    """The values of x as the model sees them: {0, 1}, {0, 1/255, ..., 1}, real numbers, tokens in 0..n_tokens - 1,
    the elements of a set, or places, at which a function has the values y."""
    n_classes: int | None = None
    """Classes in y; None where y holds something else, or nothing."""
    n_labels: int | None = None
    """Training rows whose label is known; None: all of them."""
    n_objects: int | None = None
    """The most objects in an image, where ``Batch.segments`` tells them apart; None: it does not."""
    n_tokens: int | None = None
    """Tokens in the vocabulary, of tokens, or of a set of them (N, 1)."""
    token_lengths: tuple[int, ...] | None = field(default=None, repr=False)
    """The characters that each token stands for, where this is known: they add up to the text's length, so bits per
    character are exact whatever the tokens."""
    answer_length: int | None = None
    """The most tokens of a row that are to be predicted, which together are its answer; None: rows have none."""
    pairs: bool = False
    """Whether training rows come with a partner, ``Batch.partner``."""
    next_tokens: bool = False
    """Whether y are the tokens behind those of x: a model that sees all of a row would only copy them."""
    n_hidden: int | None = None
    """The most tokens of a row that are hidden in x, which y holds; None: none is."""
    pads: bool = False
    """Whether rows end in PAD, which the vocabulary then has as its token 0, with BOS and EOS after it."""
    log_volume: float = 0.0
    """log |d x in the file / d x|, nats, of real numbers that were scaled: log p of those in the file is that much
    lower."""
    target: "DataSpec | None" = None
    """What y is, where it is more than labels or factors: the next tokens (T,), a sentence (U,), numbers, the values of
    a function (N, D)."""
    how_labelled: str = field(default="", repr=False, compare=False)
    """Of the user's own data without classes: the key that says where they are, and what it does."""

    @property
    def row(self) -> str:
        """What a row is called."""
        others = {"tokens": "text", "set": "set", "function": "function"}
        return others.get(self.kind, "image" if len(self.shape) == 3 else "row")


class Batch(NamedTuple):
    """One minibatch on the device, ready for the model."""

    x: Tensor
    """Images (B, C, H, W), float32; tokens (B, T), int64; sets and the places of functions (B, N, D), float32."""
    y: Tensor | None
    """Labels (B,), -1 where one is not known, or factors of variation (B, F), int64, where the data set has them.
    Of tokens: the next or the hidden ones (B, T), -1 where none is to be predicted; a sentence (B, U), BOS ... EOS PAD;
    labels (B,).
    Of sets: numbers (B, ...), float32, or labels. Of functions: their values (B, N, D), float32."""
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index)
    """Which rows of the split these are, (B,), int64."""
    segments: Tensor | None = None
    """The number of the document, or of the set, that each token or element of a row belongs to, (B, T) int64, -1 for
    padding; of a function CONTEXT or TARGET. None where all of a row belongs together. Of images to validate and test
    on, that of the object that each pixel belongs to, (B, H, W), -1 for the background, where it is known."""
    partner: Tensor | None = None
    """Of images to train on that come in pairs, the other of each pair, as x; see ``attelbo.data.pairs``."""
    prefix: Tensor | None = None
    """The tokens at the beginning of each row that are seen from both sides, (B,), where they have been drawn."""


class Block(NamedTuple):
    """The rows of several consecutive minibatches: what a loader of resident data yields."""

    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index)
    """Rows of the split, (<= S * batch_size,), int64."""
    batch_size: int
    """Rows in each minibatch; the last one may be shorter."""
    split: Split
    """Where the rows are."""


class ResidentData(Protocol):
    """What a data module offers to whoever trains on blocks of its rows."""

    def crops(self, device: torch.device) -> bool:
        """Whether the shape of a batch depends on which rows are in it."""
        ...

    def minibatches(self, block: Block) -> Sequence[Tensor]:
        """The row indices of each minibatch in a block, (<= batch_size,) each."""
        ...

    def materialize(self, index: Tensor, split: Split) -> Batch:
        """The rows ``index`` (B,) of a split as a batch on the index's device."""
        ...
