"""Vocabularies: text to tokens, which are numbers, and back.

A tokenizer is fitted to texts once; what it has learned is plain data, which a run directory keeps as JSON. A
vocabulary that ``pads`` begins with PAD, BOS, EOS and UNK (0 to 3), one that does not has the tokens of the text alone.

Shapes: V tokens in the vocabulary.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from attelbo.data.batch import EOS, UNK
from attelbo.data.padded import compact_dtype
from attelbo.errors import DataError
from attelbo.files import write_atomically

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""PAD, BOS, EOS and UNK, as they are written for people."""

FILE = "vocabulary.json"

PIECE = 100_000
"""Characters of a long text that are split into tokens at a time: as Python's objects tokens take many times the room
of their text, which may have 500,000,000 characters."""


class Tokenizer(ABC):
    """Splits a text into tokens of a vocabulary.

    Everything but ``fit`` and ``restore`` needs one that is fitted or restored.
    """

    splits_words: ClassVar[bool] = False
    """Whether a decoded text has blanks between all its words, punctuation too."""
    fits_to_all: ClassVar[bool] = False
    """Whether it is fitted to the texts of all splits: where it only lists an alphabet, not where it counts."""
    border: re.Pattern[str] | None = None
    """Where a long text can be cut, so that its pieces have the tokens of the whole; None: nowhere."""

    def __init__(self) -> None:
        self.tokens: tuple[str, ...] = ()
        """Every token as it is written for people, V."""
        self.pads = False
        """Whether the vocabulary begins with PAD, BOS, EOS and UNK."""
        self._number: dict[str, int] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether there is a vocabulary."""
        return bool(self.tokens)

    @property
    def n_tokens(self) -> int:
        """V."""
        return len(self.tokens)

    @property
    @abstractmethod
    def lengths(self) -> tuple[int, ...] | None:
        """How many characters of a text each of its tokens stands for, V: over the tokens of a text they add up to its
        length. None where blanks between tokens are lost."""

    def fit(self, texts: Sequence[str], pads: bool) -> None:
        """Make the vocabulary of these texts.

        Raises:
            DataError: there is no token in them.
        """
        learned = self._learn(texts, len(SPECIALS) if pads else 0)
        if not learned:
            raise DataError("data.source: its training texts are empty, and make no vocabulary")
        self._take((*SPECIALS, *learned) if pads else tuple(learned), pads)

    @abstractmethod
    def _learn(self, texts: Sequence[str], n_specials: int) -> list[str]:
        """The tokens of the texts, in the order of their numbers."""

    def _take(self, tokens: tuple[str, ...], pads: bool) -> None:
        self.tokens, self.pads = tokens, pads
        self._number = {token: number for number, token in enumerate(tokens) if not pads or number > UNK}

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text; neither BOS nor EOS is among them.

        Raises:
            DataError: something in the text is not in the vocabulary, and UNK is not in it either.
        """

    def encode_long(self, text: str) -> Tensor:
        """Those of a text of any length, (n,), of the smallest integers that hold them; see :meth:`encode`."""
        dtype = compact_dtype(self.n_tokens)
        # By NumPy, since torch takes five times as long for a list.
        encoded = (np.array(self.encode(piece), np.int32) for piece in self.pieces(text))
        return torch.cat([torch.from_numpy(tokens).to(dtype) for tokens in encoded])

    def pieces(self, text: str) -> Iterator[str]:
        """A text in pieces of PIECE characters or more, at least one."""
        start, end = 0, -1
        while end < len(text):
            cut = self.border.search(text, start + PIECE) if self.border else None
            end = cut.start() if cut else len(text)
            yield text[start:end]
            start = end

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to EOS, without PAD and BOS."""
        return self._join(self._plain(tokens))

    def written(self, text: str) -> str:
        """A text as ``decode`` would write it, were all of it in the vocabulary."""
        return text

    @abstractmethod
    def _join(self, tokens: Sequence[int]) -> str:
        """The text of tokens, of which none is special but UNK."""

    def _plain(self, tokens: Iterable[int]) -> list[int]:
        if not self.pads:
            return list(tokens)
        plain: list[int] = []
        for token in tokens:
            if token == EOS:
                break
            if token == UNK or token > EOS:
                plain.append(token)
        return plain

    # What a run directory keeps

    def state(self) -> dict[str, Any]:
        """What was learned, as plain data."""
        return {"pads": self.pads, "tokens": list(self.tokens)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` returned."""
        self._take(tuple(state["tokens"]), state["pads"])


class Kept(Protocol):
    """What can be kept, such as a tokenizer."""

    def state(self) -> dict[str, Any]:
        """What was learned, as plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what ``state`` returned."""
        ...


def save_vocabularies(folder: Path, **kept: Kept) -> None:
    """Keep what tokenizers and the like have learned, under these names."""
    content = {name: one.state() for name, one in kept.items()}
    write_atomically(folder / FILE, json.dumps(content, ensure_ascii=False))


def load_vocabularies(folder: Path, **kept: Kept) -> None:
    """Restore tokenizers and the like from what was kept under these names.

    Raises:
        DataError: the file is missing, damaged or of others.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, one in kept.items():
            one.restore(content[name])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} does not hold the vocabulary of this run ({type(error).__name__}: {error})") from error
