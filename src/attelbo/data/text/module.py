"""What all texts have in common, on the resident path: a source, a vocabulary that is known once its texts were read
and that a run directory keeps, and minibatches of similar length.

Shapes: T tokens of the longest row.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import BOS, EOS, DataSpec
from attelbo.data.module import ResidentDataModule, build_part
from attelbo.data.options import ResidentOptions
from attelbo.data.padded import bucketed_order
from attelbo.data.text.vocabulary import Kept, Tokenizer, load_vocabularies, save_vocabularies
from attelbo.errors import UserError


class TextDataModule(ResidentDataModule):
    """Texts; a subclass says what their rows are.

    Args:
        max_length: T.
        name, source, tokenizer, train_size: see :class:`~attelbo.data.options.TextOptions`.
        options: those of :class:`~attelbo.data.options.ResidentOptions`.

    Raises:
        ValueError: if a number is out of range.
    """

    bucketed = True
    """Whether rows of different lengths come in minibatches of similar length."""

    def __init__(
        self,
        max_length: int,
        *,
        name: str,
        source: Spec,
        tokenizer: Spec,
        train_size: int | None = None,
        **options: Unpack[ResidentOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, train_size=train_size)
        self._name = name
        self.source: Any = build_part("source", source)
        self.tokenizer: Tokenizer = build_part("tokenizer", tokenizer)
        self.max_length = max_length
        self.train_size = train_size
        self._described = repr((source, tokenizer))

    @property
    def spec(self) -> DataSpec:
        """Known once the vocabulary is: this reads the texts, downloaded if they are missing, unless a vocabulary was
        loaded."""
        if not self.tokenizer.is_fitted:
            self.prepare_data()
            self.setup()
        if not self.tokenizer.is_fitted:  # the splits were another module's
            self._read()
        return self._spec_of(self.tokenizer)

    def _spec_of(self, tokenizer: Tokenizer) -> DataSpec:
        """Rows of its tokens."""
        return DataSpec(
            self._name,
            (self.max_length,),
            "tokens",
            n_tokens=tokenizer.n_tokens,
            token_lengths=tokenizer.lengths,
            pads=tokenizer.pads,
        )

    def read(self, text: str) -> list[int]:
        """The tokens of a text that is in none of the splits, between BOS and EOS.

        Raises:
            UserError: something in it is not in the vocabulary, nor UNK, or it is longer than a row may be.
        """
        tokens = [BOS, *self.tokenizer.encode(text), EOS]
        if len(tokens) > self.max_length:
            raise UserError(
                f"{text!r} has {len(tokens)} tokens, BOS and EOS among them; the model was built for "
                f"{self.max_length} (data.max_length)"
            )
        return tokens

    # What a run directory keeps

    @property
    def _kept(self) -> dict[str, Kept]:
        """What is learned from the texts, by name."""
        return {"tokenizer": self.tokenizer}

    def save_state(self, folder: Path) -> None:
        """Keep what was learned from the texts."""
        save_vocabularies(folder, **self._kept)

    def load_state(self, folder: Path) -> None:
        """Load it."""
        load_vocabularies(folder, **self._kept)

    # Files to tensors

    def prepare_data(self) -> None:
        """Download what is missing.

        Raises:
            DataError: if that fails.
        """
        self.source.prepare(self.root)

    def _content(self) -> tuple[Any, ...]:
        return self._described, self.max_length, self.train_size

    @abstractmethod
    def _read(self) -> Any:
        """The texts; a vocabulary that is not fitted yet is fitted to them."""

    # Lightning's hooks

    def training_rows(self, epoch: int, rank: int, world_size: int) -> Tensor:
        """With rows of similar length in each minibatch, where they differ and it is wanted; see
        :meth:`ResidentDataModule.training_rows`."""
        lengths = self._split("train").lengths if self.bucketed else None
        if lengths is None:
            return super().training_rows(epoch, rank, world_size)
        return bucketed_order(lengths[: self.n_rows("train")], self.batch_size, self.seed, epoch, rank, world_size)
