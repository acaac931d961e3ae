"""Four ways to split a text: characters, bytes, words, and byte pairs that are learned (Sennrich, Haddow & Birch 2016,
"Neural machine translation of rare words with subword units", arXiv:1508.07909).

Shapes: V tokens in the vocabulary.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from attelbo.checks import check_at_least
from attelbo.data.batch import UNK
from attelbo.data.text.vocabulary import SPECIALS, Tokenizer
from attelbo.errors import DataError

_UNKNOWN = SPECIALS[UNK]
_WORDS = re.compile(r"\w+|[^\w\s]")
_SPACE, _REST = r"[^\S\x1c-\x1f]", r"[\S\x1c-\x1f]"
"""White space, and what is none, by Unicode: of four control characters Python thinks otherwise."""
_BEFORE_SPACE = re.compile(f"(?<={_REST}){_SPACE}")
_AFTER_LINE = re.compile(r"(?<=\n)")
_ANYWHERE = re.compile("")
_SHOWN_AT_MOST = 8
"""Characters that an error names."""


class Characters(Tokenizer):
    """One token for each character that occurs, in the order of their code points.

    Fitted to all splits, as is usual for character-level benchmarks: no more than the alphabet is learned from them.
    """

    fits_to_all = True
    border = _ANYWHERE

    @property
    def lengths(self) -> tuple[int, ...]:
        """One each, none for special tokens."""
        return tuple(int(not self.pads or number > UNK) for number in range(self.n_tokens))

    def _learn(self, texts: Sequence[str], n_specials: int) -> list[str]:
        return sorted(set().union(*texts))

    def encode(self, text: str) -> list[int]:
        """One token for each character; see :meth:`Tokenizer.encode`."""
        try:
            return [self._number[character] for character in text]
        except KeyError:
            unknown = sorted(set(text) - set(self._number))
            named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in unknown[:_SHOWN_AT_MOST])
            more = f" and {len(unknown) - _SHOWN_AT_MOST} more" if len(unknown) > _SHOWN_AT_MOST else ""
            raise DataError(
                f"characters that are not among the {len(self._number)} of the vocabulary: {named}{more}"
            ) from None

    def _join(self, tokens: Sequence[int]) -> str:
        return "".join(self.tokens[token] for token in tokens)


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8: every text can be written, and nothing is learned."""

    border = _ANYWHERE

    @property
    def lengths(self) -> tuple[int, ...]:
        """One for a byte that begins a character, none for those that continue it and for special tokens."""
        counts = tuple(int(not 0x80 <= byte < 0xC0) for byte in range(256))
        return ((0,) * len(SPECIALS) if self.pads else ()) + counts

    def _learn(self, texts: Sequence[str], n_specials: int) -> list[str]:
        return [chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in range(256)]

    def encode(self, text: str) -> list[int]:
        """The bytes of the text."""
        return [byte + self._first for byte in text.encode()]

    def _join(self, tokens: Sequence[int]) -> str:
        return bytes(token - self._first for token in tokens if token >= self._first).decode(errors="replace")

    @property
    def _first(self) -> int:
        return len(SPECIALS) if self.pads else 0


class Words(Tokenizer):
    """Words, the most frequent first.

    Split at ``punctuation``, a token is a run of letters and digits, or one other character that is no blank. Libraries
    with rules for each language, such as spaCy, which public tutorials use, differ a little. From the training
    sentences of Multi30k, lower-case, with ``min_freq`` 2, this makes vocabularies of 7,882 German and 5,898 English
    tokens.

    Args:
        split: ``punctuation``, or ``blanks`` for texts whose tokens stand apart already.
        lower: make everything lower-case.
        min_freq: how often a word must occur to be in the vocabulary; others are UNK or, in a vocabulary that does not
            pad, the word <unk>.
        line_end: the token for the end of a line, such as <eos>; None: there is none.

    Raises:
        ValueError: min_freq is below 1.
    """

    splits_words = True

    def __init__(
        self,
        split: Literal["punctuation", "blanks"] = "punctuation",
        lower: bool = False,
        min_freq: int = 1,
        line_end: str | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, min_freq=min_freq)
        self.lower = lower
        self.min_freq = min_freq
        self.line_end = line_end
        self._words: Callable[[str], list[str]] = str.split if split == "blanks" else _WORDS.findall
        self.border = _BEFORE_SPACE if line_end is None else _AFTER_LINE

    @property
    def lengths(self) -> None:
        """Not known: the blanks are lost."""

    def split(self, text: str) -> list[str]:
        """The words of a text."""
        text = text.lower() if self.lower else text
        if self.line_end is None:
            return self._words(text)
        lines = text.split("\n")  # not at the other characters that Unicode counts as line ends
        return [word for line in (lines if lines[-1] else lines[:-1]) for word in (*self._words(line), self.line_end)]

    def _learn(self, texts: Sequence[str], n_specials: int) -> list[str]:
        counts: Counter[str] = Counter()
        for text in texts:
            for piece in self.pieces(text):
                counts.update(self.split(piece))
        kept = [(-count, word) for word, count in counts.items() if count >= self.min_freq]
        own = [_UNKNOWN] if not n_specials and self.min_freq > 1 and counts[_UNKNOWN] < self.min_freq else []
        return [word for _, word in sorted(kept)] + own * bool(kept)

    def encode(self, text: str) -> list[int]:
        """The words' tokens; see :meth:`Tokenizer.encode`."""
        unknown = UNK if self.pads else self._number.get(_UNKNOWN)
        words = self.split(text)
        tokens = [self._number.get(word, unknown) for word in words]
        if None in tokens:
            word = words[tokens.index(None)]
            raise DataError(
                f"a word that is not among the {self.n_tokens:,} of the vocabulary: {word!r}; trained with "
                f"data.tokenizer.min_freq=2 it has {_UNKNOWN} for others"
            )
        return cast(list[int], tokens)

    def written(self, text: str) -> str:
        """The words of a text, blanks between them."""
        return " ".join(self.split(text))

    def _join(self, tokens: Sequence[int]) -> str:
        return " ".join(self.tokens[token] for token in tokens)


class BPE(Tokenizer):
    """Byte pairs: the bytes of UTF-8, and those pairs of tokens that occur most often, learned one after the other.

    Learned and applied by Hugging Face's ``tokenizers``, with GPT-2's rule that no token goes across the border of a
    word (Radford et al. 2019). Every text can be written, and decoding is exact.

    Args:
        size: tokens in the vocabulary, those for padding among them.

    Raises:
        ValueError: not as many as there are bytes and special tokens.
    """

    border = _BEFORE_SPACE

    def __init__(self, size: int) -> None:
        super().__init__()
        least = 256 + len(SPECIALS)
        if size < least:
            raise ValueError(f"size must be at least {least}, all bytes and special tokens, got {size}")
        self.size = size
        self._model: Any = None
        self._words: dict[str, list[int]] = {}

    @property
    def lengths(self) -> tuple[int, ...]:
        """The characters that begin in each token: none in a byte that continues one."""
        from tokenizers.pre_tokenizers import ByteLevel

        # The library writes byte b as a printable character: the bytes that print themselves in place, the others after
        # U+0100 in order.
        plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in set(plain)]
        byte_of = {chr(byte): byte for byte in plain} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
        assert set(byte_of) == set(ByteLevel.alphabet())
        first = len(SPECIALS) if self.pads else 0
        begun = (sum(not 0x80 <= byte_of[written] < 0xC0 for written in token) for token in self.tokens[first:])
        return (0,) * first + tuple(begun)

    def _learn(self, texts: Sequence[str], n_specials: int) -> list[str]:
        from tokenizers import Tokenizer as Library

        if not any(texts):
            return []
        pieces = [piece for text in texts for piece in self.pieces(text)]
        library: Any = Library.from_str(_merged(pieces, self.size, n_specials))
        self._model = _taken_literally(library)
        self._words.clear()
        vocabulary: dict[str, int] = library.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)[n_specials:]

    def encode(self, text: str) -> list[int]:
        """The byte pairs of a text; each word, with the white space before it, is asked for once."""
        if len(self._words) > _MOST_WORDS:
            self._words.clear()
        tokens: list[int] = []
        for word in _SPACED_WORDS.findall(text):
            if (known := self._words.get(word)) is None:
                known = self._words[word] = self._ids(word)
            tokens += known
        return tokens

    def _ids(self, text: str) -> list[int]:
        return self._model.encode(text, add_special_tokens=False).ids

    def _join(self, tokens: Sequence[int]) -> str:
        return self._model.decode(list(tokens), skip_special_tokens=False)

    def state(self) -> dict[str, Any]:
        """What was learned: the library's own JSON."""
        return {"pads": self.pads, "model": self._model.to_str()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From the library's JSON."""
        from tokenizers import Tokenizer as Library

        self._model = _taken_literally(Library.from_str(state["model"]))
        self._words.clear()
        vocabulary: dict[str, int] = self._model.get_vocab()
        self._take(tuple(sorted(vocabulary, key=vocabulary.__getitem__)), state["pads"])


_MERGED: dict[bytes, str] = {}
"""What was learned in this process, by the digest of what it was learned from: seconds, and the jobs of a sweep read
the same texts."""
_MOST_MERGED = 4


def _merged(texts: Sequence[str], size: int, n_specials: int) -> str:
    """The library's JSON of byte pairs learned from these texts."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    digest = hashlib.sha256(f"{size} {n_specials} {[*map(len, texts)]}".encode())
    for text in texts:
        digest.update(text.encode())
    if (key := digest.digest()) not in _MERGED:
        library: Any = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIALS[:n_specials]),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        if len(_MERGED) == _MOST_MERGED:
            del _MERGED[next(iter(_MERGED))]
        _MERGED[key] = library.to_str()
    return _MERGED[key]


_SPACED_WORDS = re.compile(f"{_SPACE}*{_REST}+|{_SPACE}+$")
"""Words, each with the white space before it, across which no token goes; white space at the end of a text."""
_MOST_WORDS = 1_000_000
"""Of which the tokens are remembered."""


def _taken_literally(library: Any) -> Any:
    """The library's tokenizer, for which "<eos>" in a text is five characters."""
    library.encode_special_tokens = True
    return library
