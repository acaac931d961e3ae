"""Texts to classify, on the resident path, in minibatches of similar length.

x is BOS, tokens, EOS and then PAD; y the number of the class in the alphabetical order of names. The vocabulary and the
classes are those of the training texts, but for alphabets, which are those of all splits.

Shapes: B batch, T tokens.
"""

from dataclasses import replace
from typing import Any, Unpack

import torch

from attelbo.checks import check_at_least
from attelbo.data.batch import BOS, EOS, DataSpec, Split
from attelbo.data.labels import Classes
from attelbo.data.module import Splits, fixed_generator
from attelbo.data.options import TextOptions
from attelbo.data.padded import PaddedSplit
from attelbo.data.text.labelled import Labelled, LabelledText
from attelbo.data.text.module import TextDataModule
from attelbo.data.text.source import Source
from attelbo.data.text.vocabulary import Kept
from attelbo.errors import ConfigError, DataError

_SHOWN = 40
"""Characters of a text that an error shows."""


class TextClassificationDataModule(TextDataModule):
    """Labelled texts.

    Args:
        max_length: the most tokens of a text, BOS and EOS among them: what a model must have positions for.
        cut_longer: cut texts that are longer; else they are refused.
        validation_share: the share of the training texts that is set aside, the same in every run, for each of
            validation and test that has no texts of its own.
        options: those of :class:`~attelbo.data.options.TextOptions`.

    Raises:
        ValueError: if a number is out of range.
    """

    source: Source[LabelledText]

    def __init__(
        self,
        max_length: int,
        cut_longer: bool = False,
        validation_share: float = 0.1,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(max_length, **options)
        check_at_least(3, max_length=max_length)
        if not 0 < validation_share < 0.5:
            raise ValueError(f"validation_share must be between 0 and 0.5, got {validation_share}")
        self.classes = Classes()
        self.cut_longer = cut_longer
        self.validation_share = validation_share

    @property
    def spec(self) -> DataSpec:
        """Known once vocabulary and classes are: this reads the texts, unless they were loaded."""
        return replace(super().spec, n_classes=len(self.classes.names))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, known once ``spec`` is."""
        n_classes = self.spec.n_classes
        return self.classes.names[:n_classes]

    @property
    def _kept(self) -> dict[str, Kept]:
        return {**super()._kept, "classes": self.classes}

    def read(self, text: str) -> list[int]:
        """The tokens of a text that is in none of the splits, cut as those of the splits are; see
        :meth:`TextDataModule.read`."""
        if not self.cut_longer:
            return super().read(text)
        return [BOS, *self.tokenizer.encode(text)[: self.max_length - 2], EOS]

    # Files to tensors

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.cut_longer, self.validation_share

    def _read(self) -> dict[Split, Labelled]:
        """The rows of all splits; vocabulary and classes are made, if there are none."""
        rows = self._divide(self.source.load(self.root))
        if not self.tokenizer.is_fitted:
            of_all = [text for split in rows.values() for text in split.texts]
            self.tokenizer.fit(of_all if self.tokenizer.fits_to_all else rows["train"].texts, pads=True)
            self.classes.names = tuple(sorted(set(rows["train"].labels)))
        return rows

    def _divide(self, given: LabelledText) -> dict[Split, Labelled]:
        """The three splits, those that have no rows of their own made of training rows; these are shuffled, since
        files are often sorted by class."""
        n = len(given.train.texts)
        order = torch.randperm(n, generator=fixed_generator("validation split")).tolist()
        share = int(n * self.validation_share)
        rows: dict[Split, Labelled] = {}
        others: dict[Split, Labelled | None] = {"validation": given.validation, "test": given.test}
        for split, own in others.items():
            if own is None:
                own, order = _rows(given.train, order[:share]), order[share:]
            rows[split] = own
        if not all(part.texts for part in rows.values()):
            raise ConfigError(f"data.validation_share={self.validation_share} of {n:,} texts is less than one")
        return {"train": _rows(given.train, order), **rows}

    def _load(self) -> Splits:
        rows = self._read()
        rows["train"] = Labelled(*(part[: self.train_size] for part in rows["train"]))
        return {split: self._resident(split, labelled) for split, labelled in rows.items()}

    def _resident(self, split: Split, rows: Labelled) -> PaddedSplit:
        encoded = [self.tokenizer.encode(text) for text in rows.texts]
        room = self.max_length - 2
        longest = max(range(len(encoded)), key=lambda place: len(encoded[place]))
        if len(encoded[longest]) > room and not self.cut_longer:
            raise ConfigError(
                f"data.max_length must be at least {len(encoded[longest]) + 2}, BOS and EOS among them, for the "
                f"{split} text {rows.texts[longest][:_SHOWN]!r}, got {self.max_length}: raise it or set "
                "data.cut_longer=true"
            )
        number = {name: place for place, name in enumerate(self.classes.names)}
        if unknown := sorted(set(rows.labels) - set(number)):
            raise DataError(
                f"{self._name}: no {split} text may be of class {unknown[0]!r}, of which none is to train on"
            )
        y = torch.tensor([number[label] for label in rows.labels])
        return PaddedSplit([[BOS, *text[:room], EOS] for text in encoded], y)


def _rows(labelled: Labelled, rows: list[int]) -> Labelled:
    return Labelled(*([part[row] for row in rows] for part in labelled))
