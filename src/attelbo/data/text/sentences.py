"""Texts for models that read each as a whole, on the resident path, in minibatches of similar length.

x is BOS, tokens, EOS and then PAD; there is no y. The documents of a corpus are the texts: of a file with
``separator="\\n"`` its lines. The vocabulary is that of the training texts, but for alphabets, which are those of all
splits.

Shapes: B batch, T tokens.
"""

from typing import Any

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import BOS, EOS, Split
from attelbo.data.module import Splits
from attelbo.data.padded import PaddedSplit
from attelbo.data.text.corpora import Corpus
from attelbo.data.text.module import TextDataModule
from attelbo.data.text.source import Source
from attelbo.errors import ConfigError


class SentenceDataModule(TextDataModule):
    """Texts, each of them a row.

    Args:
        name: the data set's name in reports.
        source: the class in ``attelbo.data.text`` that reads it.
        tokenizer: what makes tokens of it.
        root: the folder of data sets.
        seed: the run's seed; the order of the training rows follows from it.
        batch_size: texts in a training minibatch, per device.
        eval_batch_size: texts in a validation or test minibatch, per device.
        max_length: the most tokens of a text, BOS and EOS among them: what a model must have positions for.
        drop_longer: leave out training texts that are longer; else they are refused, as in the other splits.
        drop_last: leave out the training rows at the end of an epoch that do not fill a minibatch.
        minibatches_per_block: training minibatches in one Lightning step; 0: plain Lightning batches.
        train_size: use only the first so many of the training texts, with the vocabulary of all of them; all if None.

    Raises:
        ValueError: if a number is out of range.
    """

    source: Source[Corpus]

    def __init__(
        self,
        name: str,
        source: Spec,
        tokenizer: Spec,
        root: str,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        max_length: int,
        drop_longer: bool = False,
        drop_last: bool = False,
        minibatches_per_block: int = 16,
        train_size: int | None = None,
    ) -> None:
        super().__init__(
            name,
            source,
            tokenizer,
            root,
            seed,
            batch_size,
            eval_batch_size,
            max_length,
            drop_last,
            minibatches_per_block,
            train_size,
        )
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
