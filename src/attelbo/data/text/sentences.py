"""Texts for models that read each as a whole, on the resident path, in minibatches of similar length.

x is BOS, tokens, EOS and then PAD; there is no y. The documents of a corpus are the texts: of a file with
``separator="\\n"`` its lines. The vocabulary is that of the training texts, but for alphabets, which are those of all
splits.

Shapes: B batch, T tokens.
"""

from typing import Any, Unpack

from attelbo.checks import check_at_least
from attelbo.data.batch import BOS, EOS, Split
from attelbo.data.module import Splits
from attelbo.data.options import TextOptions
from attelbo.data.padded import PaddedSplit
from attelbo.data.text.corpora import Corpus
from attelbo.data.text.module import TextDataModule
from attelbo.data.text.source import Source
from attelbo.errors import ConfigError


class SentenceDataModule(TextDataModule):
    """Texts, each of them a row.

    Args:
        max_length: the most tokens of a text, BOS and EOS among them: what a model must have positions for.
        drop_longer: leave out training texts that are longer; else they are refused, as in the other splits.
        options: those of :class:`~attelbo.data.options.TextOptions`.

    Raises:
        ValueError: if a number is out of range.
    """

    source: Source[Corpus]

    def __init__(
        self,
        max_length: int,
        drop_longer: bool = False,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(max_length, **options)
        check_at_least(3, max_length=max_length)
        self.drop_longer = drop_longer

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.drop_longer

    def _read(self) -> Corpus:
        """The texts; the vocabulary is made, if there is none."""
        corpus = self.source.load(self.root)
        if not self.tokenizer.is_fitted:
            others = [*corpus.validation, *corpus.test] if self.tokenizer.fits_to_all else []
            self.tokenizer.fit([*corpus.train, *others], pads=True)
        return corpus

    def _load(self) -> Splits:
        corpus = self._read()
        return {
            "train": self._resident("train", corpus.train[: self.train_size]),
            "validation": self._resident("validation", corpus.validation),
            "test": self._resident("test", corpus.test),
        }

    def _resident(self, split: Split, texts: list[str]) -> PaddedSplit:
        rows = [[BOS, *self.tokenizer.encode(text), EOS] for text in texts]
        longest = max(map(len, rows), default=0)
        if longest > self.max_length:
            if split != "train" or not self.drop_longer:
                remedy = " or set data.drop_longer=true" if split == "train" else ""
                raise ConfigError(
                    f"data.max_length must be at least {longest}, the tokens of the longest {split} text, BOS and EOS "
                    f"among them, got {self.max_length}: raise it{remedy}"
                )
            rows = [row for row in rows if len(row) <= self.max_length]
        if not rows:
            raise ConfigError(f"data: {self._name} has no {split} text of at most {self.max_length} tokens")
        return PaddedSplit(rows, None)
