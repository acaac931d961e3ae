"""Text to model, on the resident path: a stream of tokens, packed documents, or documents one in a row.

Shapes: B batch, T tokens of the context.
"""

import json
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from attelbo.checks import check_at_least, check_below_one
from attelbo.data.batch import Batch, DataSpec, Evaluated, Split
from attelbo.data.kept import kept
from attelbo.data.loader import rows_per_rank
from attelbo.data.module import Splits, fixed_generator
from attelbo.data.options import TextOptions
from attelbo.data.resident import ResidentSplit
from attelbo.data.text.corpora import Corpus
from attelbo.data.text.masking import hide
from attelbo.data.text.module import TextDataModule
from attelbo.data.text.source import Source
from attelbo.data.text.streams import DocumentSplit, StreamSplit, Windows, pack
from attelbo.errors import ConfigError
from attelbo.seeding import derive_seed

LONG_TEXT = 10_000_000
"""Characters from which what is made of a text may be kept: see ``data.kept``."""

Documents = Literal["stream", "packed", "padded", "bucketed"]


class LanguageDataModule(TextDataModule):
    """A text whose next tokens are to be predicted, or those that are hidden.

    Evaluation predicts each token once (but the very first of a stream), in windows that follow each other, so that
    sums over a split do not depend on batches. What is hidden (see ``masking``) is drawn anew for each training
    minibatch, and once, the same in every run, for evaluation: its loss is a mean over hidden tokens given the others,
    of no density of a text, so there are no bits per character. At the end of a stream the tokens that fill no row are
    left out then.

    Args:
        context: T, the tokens of a row.
        documents: ``stream`` (one text, as if there were no documents), ``packed`` (one after the other between BOS and
            EOS, numbered in ``segments``), ``padded`` (one in a row) or ``bucketed`` (the same, in minibatches of
            similar length, so that little of them is padding; tokens of short documents then count for more, since the
            loss is a mean over those of a minibatch).
        windows: of a stream, in training: ``random`` (drawn anew for each epoch) or ``consecutive``.
        windows_per_epoch: of random windows; as many as are consecutive if None.
        masked: the share of tokens that are hidden; 0: none is, and the next ones are to be predicted.
        options: those of :class:`~attelbo.data.options.TextOptions`.

    Raises:
        ValueError: if a number is out of range, or documents one in a row are asked for random windows.
    """

    source: Source[Corpus]

    def __init__(
        self,
        context: int,
        documents: Documents = "stream",
        windows: Windows = "consecutive",
        windows_per_epoch: int | None = None,
        masked: float = 0.0,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(context, **options)
        check_at_least(1, context=context, windows_per_epoch=windows_per_epoch)
        check_below_one(masked=masked)
        if windows_per_epoch is not None and windows == "consecutive":
            raise ValueError("windows_per_epoch must be null where windows are consecutive")
        if documents in ("padded", "bucketed") and windows == "random":
            raise ValueError(f"windows must be 'consecutive' for {documents} documents, which are rows as they are")
        self.context = context
        self.documents: Documents = documents
        self.bucketed = documents == "bucketed"
        self.windows: Windows = windows
        self.windows_per_epoch = windows_per_epoch
        self.masked = masked
        self._hidden: dict[Split, tuple[Tensor, Tensor]] = {}
        self._wanted: Sequence[Split] = ("train", "validation", "test")

    @property
    def spec(self) -> DataSpec:
        """Known once the vocabulary is: this reads the text, unless a vocabulary was loaded."""
        spec = super().spec
        if self.masked:
            n_hidden = math.ceil(self.masked * self.context)
            spec = replace(spec, n_tokens=self.tokenizer.n_tokens + 1, token_lengths=None, n_hidden=n_hidden)
        return replace(spec, target=spec, next_tokens=not self.masked)

    # Files to tensors

    def _content(self) -> tuple[Any, ...]:
        return *super()._content(), self.documents, self.windows, bool(self.masked)

    def _read(self) -> Corpus:
        """The documents; the vocabulary is made, if there is none."""
        corpus = self.source.load(self.root)
        if not self.tokenizer.is_fitted:
            parts = corpus[:3] if self.tokenizer.fits_to_all else [corpus.train]
            texts = [text for part in parts for text in self._texts(part, corpus.joint)]
            self._fit(texts, pads=self.documents != "stream")
        return corpus

    def _texts(self, documents: list[str], joint: str) -> list[str]:
        """Documents as they are read: as one text, with what stands between them, or each by itself."""
        return [joint.join(documents)] if self.documents == "stream" else documents

    def _fit(self, texts: list[str], pads: bool) -> None:
        """Make the vocabulary of these texts; of long ones it is made once."""
        if sum(map(len, texts)) < LONG_TEXT:
            self.tokenizer.fit(texts, pads)
            return

        def learned() -> np.ndarray:
            self.tokenizer.fit(texts, pads)
            return np.frombuffer(json.dumps(self.tokenizer.state()).encode(), np.uint8)

        state = kept(self.root, ("vocabulary", self._described, pads, *texts), type(self.tokenizer), learned)
        self.tokenizer.restore(json.loads(state.tobytes()))

    def _encoded(self, text: str) -> Tensor:
        """The tokens of a text, (n,); those of a long one are found once."""
        encode = self.tokenizer.encode_long
        if len(text) < LONG_TEXT:
            return encode(text)
        about = ("tokens", self._described, self.tokenizer.state(), text)
        return torch.from_numpy(kept(self.root, about, type(self.tokenizer), lambda: encode(text).numpy()))

    def _load(self) -> Splits:
        corpus, splits = self._read(), Splits()
        for split in self._wanted:
            if split == "test" and corpus.test is corpus.validation and "validation" in splits:
                splits[split] = splits["validation"]
            else:
                windows = self.windows if split == "train" else "consecutive"
                splits[split] = self._resident(split, getattr(corpus, split), corpus.joint, windows)
        return splits

    def _resident(
        self, split: Split, documents: list[str], joint: str, windows: Windows
    ) -> StreamSplit | DocumentSplit:
        if self.documents == "stream":
            tokens = self._encoded(*self._texts(documents, joint))
        elif self.documents == "packed":
            tokens = pack(self._encoded(document) for document in documents)
        else:
            return DocumentSplit([self.tokenizer.encode(document) for document in documents], self.context)
        if self.masked and self.documents == "stream":
            tokens = tokens[: len(tokens) - (len(tokens) - 1) % self.context]
        least = self.context + 1 if split == "train" or self.masked else 2
        if len(tokens) < least:
            raise ConfigError(
                f"data.context={self.context:,} needs {least:,} tokens, the {split} text of {self._name} has "
                f"{len(tokens):,}"
            )
        return StreamSplit(tokens, self.context, windows, self.documents == "packed")

    def _trained(self) -> ResidentSplit:
        """Windows that follow each other, with all the tokens that random ones were drawn from."""
        train = self._splits["train"]
        if self.windows == "consecutive":
            return train
        assert isinstance(train, StreamSplit)
        places = len(train.tokens) if self.train_size is None else self.train_size - 1 + self.context
        if self.masked and self.documents == "stream":
            places -= places % self.context
        return train.consecutive(places)

    @property
    def row_tokens(self) -> int | None:
        return self.context if self.documents in ("stream", "packed") else None

    @property
    def length(self) -> int:
        """The context."""
        return self.context

    def at_length(self, length: int, split: Evaluated) -> Self:
        """With another context: the same tokens are predicted, each with what stands before it in its window."""
        check_at_least(1, length=length)
        if split == "trained" and self.train_size is not None:
            raise ValueError("data.train_size counts rows, so that longer ones would be of other tokens: split=test")
        other = copy(self)
        other.context = other.max_length = length
        other._splits, other._loaded, other._hidden = {}, {}, {}
        other._wanted = ("train",) if split == "trained" else (split,)
        return other

    def n_rows(self, split: Split) -> int:
        """Rows of a split; of random windows to train on, places where one may begin."""
        n = super().n_rows(split)
        some = split == "train" or (split == "trained" and self.windows == "consecutive")
        return min(n, self.train_size) if some and self.train_size else n

    # Tensors to batches

    def materialize(self, index: Tensor, split: Split) -> Batch:
        """The rows ``index`` (B,) of a split as a batch on the index's device."""
        batch = super().materialize(index, split)
        if not self.masked:
            return batch
        if split == "train":
            x, y = self._hide(batch.x)
        else:
            x, y = (rows[index, : batch.x.shape[1]].long() for rows in self._fixed(split, index.device))
        return batch._replace(x=x, y=y)

    def _hide(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return hide(x, self.masked, self.tokenizer.n_tokens, self.tokenizer.pads, generator)

    def _fixed(self, split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
        """All rows of a split to evaluate on, (N, T), what is hidden in them drawn once."""
        if split not in self._hidden:
            rows = super().materialize(torch.arange(self.n_rows(split)), split).x
            x, y = self._hide(rows, fixed_generator(f"{split} hidden"))
            self._hidden[split] = x.int(), y.int()
        x, y = self._hidden[split]
        if x.device != device:
            x, y = self._hidden[split] = x.to(device), y.to(device)
        return x, y

    # Lightning's hooks

    @property
    def rows_per_epoch(self) -> int:
        """Of random windows as many as were asked for, else each training row once."""
        if self.windows == "consecutive":
            return self.n_rows("train")
        return self.windows_per_epoch or -(-self.n_rows("train") // self.context)

    def training_rows(self, epoch: int, rank: int, world_size: int) -> Tensor:
        """Random windows are drawn with replacement; see :meth:`TextDataModule.training_rows`."""
        if self.windows == "random":
            n = rows_per_rank(self.rows_per_epoch, world_size) * world_size
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "windows", epoch))
            return torch.randint(self.n_rows("train"), (n,), generator=generator)[rank::world_size]
        return super().training_rows(epoch, rank, world_size)
