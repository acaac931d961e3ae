"""The arguments that constructors of data modules have in common, passed on by keyword (PEP 692)."""

from typing import NotRequired, TypedDict

from attelbo.building import Spec
from attelbo.data.binarize import Binarization
from attelbo.data.nuisances import Nuisance
from attelbo.data.pairs import Pairs
from attelbo.data.sources.base import ImageSource


class ResidentOptions(TypedDict):
    """The arguments of every resident data set."""

    root: str
    """The folder of data sets."""
    seed: int
    """The run's seed; the order of the training rows follows from it."""
    batch_size: int
    """Rows in a training minibatch, per device."""
    eval_batch_size: int
    """Rows in a validation or test minibatch, per device."""
    drop_last: NotRequired[bool]
    """Leave out the training rows at the end of an epoch that do not fill a minibatch."""
    minibatches_per_block: NotRequired[int]
    """Training minibatches in one Lightning step; 0: plain Lightning batches."""


class ImageOptions(ResidentOptions):
    """The arguments of every data set of images."""

    name: str
    """The data set's name in reports."""
    source: Spec | ImageSource
    """An ``ImageSource``, or the node of one, in ``attelbo.data.sources`` or a package of your own."""
    validation_size: NotRequired[int | None]
    """Training rows that are set aside for validation, taken from a published validation set where there is one. If
    None all of that set, or a tenth of the training rows."""
    binarize: NotRequired[Binarization]
    """``none`` (grey levels), ``threshold`` (at one half), ``static`` (drawn once, Larochelle & Murray 2011) or
    ``dynamic`` (drawn anew whenever a training row is used, Salakhutdinov & Murray 2008)."""
    flip: NotRequired[bool]
    """Mirror training images left to right with probability one half."""
    crop: NotRequired[int]
    """Pad each training image with so many black pixels on all sides and take a random window of its own size."""
    train_size: NotRequired[int | None]
    """Use only so many of the training rows (to debug, or to learn from little); all if None."""
    n_labels: NotRequired[int | None]
    """So many of these rows keep their label, balanced over the classes and the same in every run; that of the others
    is -1. All if None."""
    pairs: NotRequired[Pairs | None]
    """Each training row comes with another that differs from it in so many of its factors, or in a number of them that
    is drawn too (``random``): see :class:`attelbo.data.pairs.Pairing`. None: it comes alone."""
    nuisance: NotRequired[Nuisance]
    """What varies in black and white images beside their factors, in three channels: the ``color`` of what is white, or
    ``noise`` in place of what is black; anew whenever a training row is used."""


class TextOptions(ResidentOptions):
    """The arguments of every data set of texts."""

    name: str
    """The data set's name in reports."""
    source: Spec
    """The class in ``attelbo.data.text`` that reads them."""
    tokenizer: Spec
    """What makes tokens of them."""
    train_size: NotRequired[int | None]
    """Use only so many of the training rows, with the vocabulary of all of them; all if None."""
