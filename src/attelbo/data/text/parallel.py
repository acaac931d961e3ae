"""Parallel text on the resident path: sentences and their translations, in minibatches of similar length.

x and y are BOS, tokens, EOS and then PAD. The vocabularies are made of the training sentences, but for alphabets, which
are those of all splits.

Shapes: B batch, T tokens of x, U tokens of y.
"""

from dataclasses import replace
from typing import Any, Unpack

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import BOS, EOS, DataSpec, Evaluated, Split
from attelbo.data.module import Splits, build_part
from attelbo.data.options import TextOptions
from attelbo.data.padded import PaddedSplit
from attelbo.data.text.aligned import Pairs, ParallelText
from attelbo.data.text.module import TextDataModule
from attelbo.data.text.source import Source
from attelbo.data.text.vocabulary import Kept, Tokenizer
from attelbo.errors import ConfigError


class ParallelDataModule(TextDataModule):
    """Sentences to translate.

    Args:
        target_tokenizer: of their translations; the same one, made of both sides, if None.
        max_length: the most tokens of a sentence, BOS and EOS among them: what a model must have positions for.
        drop_longer: leave out training pairs that are longer; else they are refused, as in the other splits.
        bucketed: pairs of similar length in a minibatch, so that little of it is padding; else of any length. Bucketed,
            tokens of short targets count for more, since the loss is a mean over those of a minibatch.
        options: those of :class:`~attelbo.data.options.TextOptions`.

    Raises:
        ValueError: if a number is out of range.
    """

    source: Source[ParallelText]

    def __init__(
        self,
        max_length: int,
        target_tokenizer: Spec | None,
        drop_longer: bool = False,
        bucketed: bool = True,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(max_length, **options)
        check_at_least(3, max_length=max_length)
        self.target_tokenizer: Tokenizer = (
            self.tokenizer if target_tokenizer is None else build_part("target_tokenizer", target_tokenizer)
        )
        self.drop_longer = drop_longer
        self.bucketed = bucketed
        self._described += repr(target_tokenizer)

    @property
    def spec(self) -> DataSpec:
        """Known once the vocabularies are: this reads the sentences, unless vocabularies were loaded."""
        return replace(super().spec, target=self._spec_of(self.target_tokenizer))

    @property
    def _kept(self) -> dict[str, Kept]:
        return {**super()._kept, "target_tokenizer": self.target_tokenizer}

    def references(self, split: Evaluated) -> list[str]:
        """The targets of a split as they would be decoded if every word were in the vocabulary: what translations are
        compared with.

        Raises:
            DataError: a file is missing or damaged.
        """
        text = self._read()
        pairs = self._to_train_on(text) if split == "trained" else getattr(text, split)
        longer = self._longer(*self._encoded(pairs)) if split == "trained" else ()
        return [self.target_tokenizer.written(target) for row, target in enumerate(pairs.target) if row not in longer]

    # Files to tensors

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.drop_longer

    def _read(self) -> ParallelText:
        """The sentences; the vocabularies are made, if there are none."""
        text = self.source.load(self.root)
        sides = {self.tokenizer: (0, 1)} if self.shares else {self.tokenizer: (0,), self.target_tokenizer: (1,)}
        for tokenizer, places in sides.items():
            if not tokenizer.is_fitted:
                parts = text if tokenizer.fits_to_all else (text.train,)
                tokenizer.fit([sentence for pairs in parts for place in places for sentence in pairs[place]], pads=True)
        return text

    @property
    def shares(self) -> bool:
        """Whether both sides have one vocabulary."""
        return self.target_tokenizer is self.tokenizer

    def _load(self) -> Splits:
        text = self._read()
        return {
            "train": self._resident("train", self._to_train_on(text)),
            "validation": self._resident("validation", text.validation),
            "test": self._resident("test", text.test),
        }

    def _to_train_on(self, text: ParallelText) -> Pairs:
        return Pairs(*(part[: self.train_size] for part in text.train))

    def _encoded(self, pairs: Pairs) -> tuple[list[list[int]], list[list[int]]]:
        x = [[BOS, *self.tokenizer.encode(sentence), EOS] for sentence in pairs.source]
        y = [[BOS, *self.target_tokenizer.encode(sentence), EOS] for sentence in pairs.target]
        return x, y

    def _longer(self, x: list[list[int]], y: list[list[int]]) -> set[int]:
        """The rows that do not fit."""
        return {row for row, both in enumerate(zip(x, y, strict=True)) if max(map(len, both)) > self.max_length}

    def _resident(self, split: Split, pairs: Pairs) -> PaddedSplit:
        x, y = self._encoded(pairs)
        longer = self._longer(x, y)
        if longer:
            if split != "train" or not self.drop_longer:
                row = min(longer)
                remedy = " or set data.drop_longer=true" if split == "train" else ""
                raise ConfigError(
                    f"data.max_length must be at least {max(len(x[row]), len(y[row]))}, the tokens of {split} pair "
                    f"{row + 1:,}, BOS and EOS among them, got {self.max_length}: raise it{remedy}"
                )
            if len(longer) == len(x):
                raise ConfigError(f"data.max_length={self.max_length} leaves no pair to train on: raise it")
            kept = [row for row in range(len(x)) if row not in longer]
            x, y = [x[row] for row in kept], [y[row] for row in kept]
        return PaddedSplit(x, y)
