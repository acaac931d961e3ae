"""Tokenizers: what is encoded comes back, numbers and lengths are exact, and what is not known is told."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attelbo.data import BOS, EOS, PAD, UNK
from attelbo.data.padded import compact_dtype
from attelbo.data.text import BPE, Bytes, Characters, Words
from attelbo.data.text.vocabulary import Tokenizer, load_vocabularies, save_vocabularies
from attelbo.errors import DataError

TEXT = 'Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n"The <eos> of 1,000 dogs", naïve 😀!\n' * 3

EVERY = {"characters": Characters, "bytes": Bytes, "bpe": lambda: BPE(300), "words": Words}
EXACT = {name: make for name, make in EVERY.items() if name != "words"}


def fitted(make, text=TEXT, pads=True):
    tokenizer = make()
    tokenizer.fit([text], pads)
    return tokenizer


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_decoding_gives_the_text_back(make, pads):
    tokenizer = fitted(make, pads=pads)
    tokens = tokenizer.encode(TEXT)
    assert tokenizer.decode(tokens) == TEXT
    assert min(tokens) >= (4 if pads else 0)
    assert max(tokens) < tokenizer.n_tokens


@pytest.mark.parametrize("make", [Bytes, lambda: BPE(300)], ids=["bytes", "bpe"])
@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_bytes_write_every_text(make, text):
    tokenizer = fitted(make)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert sum(tokenizer.lengths[token] for token in tokens) == len(text)


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_characters_of_tokens_add_up_to_the_length(make, pads):
    tokenizer = fitted(make, pads=pads)
    assert len(tokenizer.lengths) == tokenizer.n_tokens
    assert sum(tokenizer.lengths[token] for token in tokenizer.encode(TEXT)) == len(TEXT)
    if pads:
        assert tokenizer.lengths[:4] == (0, 0, 0, 0)


def test_words_do_not_know_how_long_the_text_was():
    assert fitted(Words).lengths is None


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_decoding_stops_at_the_end_and_drops_what_is_special(make):
    tokenizer = fitted(make, "ab cd")
    tokens = tokenizer.encode("ab cd")
    assert tokenizer.decode([BOS, *tokens, EOS, *tokens, PAD]) == "ab cd"
    assert tokenizer.tokens[:4] == ("<pad>", "<bos>", "<eos>", "<unk>")


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_a_run_directory_keeps_it(make, pads, tmp_path):
    tokenizer, restored = fitted(make, pads=pads), make()
    save_vocabularies(tmp_path, tokenizer=tokenizer)
    load_vocabularies(tmp_path, tokenizer=restored)
    assert restored.tokens == tokenizer.tokens
    assert restored.lengths == tokenizer.lengths
    assert restored.encode(TEXT) == tokenizer.encode(TEXT)
    assert restored.decode(tokenizer.encode(TEXT)) == tokenizer.decode(tokenizer.encode(TEXT))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"tokenizer": 3}', '{"tokenizer": {"pads": true}}'])
def test_a_damaged_vocabulary_is_told(content, tmp_path):
    if content is not None:
        (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(DataError, match=r"vocabulary\.json does not hold the vocabulary of this run \("):
        load_vocabularies(tmp_path, tokenizer=Characters())


def test_characters_are_those_of_the_text_in_order():
    tokenizer = fitted(Characters, "banana", pads=False)
    assert tokenizer.tokens == ("a", "b", "n")
    assert tokenizer.encode("ban") == [1, 0, 2]


def test_characters_that_are_not_known_are_named():
    tokenizer = fitted(Characters, "abc")
    told = "characters that are not among the 3 of the vocabulary: '\\n' (U+000A), 'é' (U+00E9)"
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        tokenizer.encode("abécb\n")
    with pytest.raises(DataError, match=r"'k' \(U\+006B\) and 5 more$"):
        tokenizer.encode("defghijklmnop")


def test_words_are_ordered_by_how_often_they_occur():
    tokenizer = Words(lower=True, min_freq=2)
    tokenizer.fit(["The cat saw the dog.", "A dog saw the man-eating cat's tail."], pads=True)
    assert tokenizer.tokens[4:] == ("the", ".", "cat", "dog", "saw")
    assert tokenizer.encode("The dog ate.") == [4, 7, UNK, 5]
    assert tokenizer.decode(tokenizer.encode("The dog ate.")) == "the dog <unk> ."
    assert tokenizer.split("The man-eating cat's tail.") == ["the", "man", "-", "eating", "cat", "'", "s", "tail", "."]


def test_words_that_stand_apart_already():
    tokenizer = Words(split="blanks", line_end="<eos>")
    tokenizer.fit([" no it was n't black <unk> \n but N\n"], pads=False)
    assert tokenizer.split(" no <unk> \n but N\n") == ["no", "<unk>", "<eos>", "but", "N", "<eos>"]
    assert tokenizer.split("no\u2028N\x0c but") == ["no", "N", "but", "<eos>"]  # one line, whatever Unicode calls it
    assert tokenizer.split("") == []
    assert tokenizer.decode(tokenizer.encode("but <unk>\n")) == "but <unk> <eos>"
    assert tokenizer.decode(tokenizer.encode("but cat\n")) == "but <unk> <eos>"


@pytest.mark.parametrize("min_freq", [1, 2])
def test_rare_words_of_a_stream_are_unknown_where_some_must_be(min_freq):
    tokenizer = Words(min_freq=min_freq)
    tokenizer.fit(["a b a c a b"], pads=False)
    if min_freq == 2:
        assert tokenizer.tokens == ("a", "b", "<unk>")
        assert tokenizer.encode("a c d") == [0, 2, 2]
    else:
        assert tokenizer.tokens == ("a", "b", "c")
        with pytest.raises(DataError, match=r"3 of the vocabulary: 'd'; trained with data\.tokenizer\.min_freq=2"):
            tokenizer.encode("a d c")


def test_a_stream_that_says_what_is_unknown_has_one_word_for_it():
    tokenizer = Words(split="blanks", min_freq=2)
    tokenizer.fit(["a <unk> b a <unk>"], pads=False)
    assert tokenizer.tokens == ("<unk>", "a")
    assert tokenizer.encode("a b") == [1, 0]


def test_pairs_of_bytes_are_those_of_the_paper():
    """Sennrich et al. 2016, Algorithm 1, on its own example, where e-s and es-t are merged first. The library marks
    where words begin, the paper where they end."""
    text = "low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3
    tokenizer = BPE(256 + 4 + 4)
    tokenizer.fit([text], pads=True)
    assert set(tokenizer.tokens[-4:]) >= {"es", "est", "lo"}
    assert [tokenizer.tokens[token] for token in tokenizer.encode("newest")][-1] == "est"


def test_a_larger_vocabulary_makes_shorter_texts():
    rng = random.Random(0)
    text = " ".join(rng.choice(["low", "lower", "newest", "widest"]) for _ in range(500))
    lengths = [len(fitted(lambda size=size: BPE(size), text).encode(text)) for size in (260, 264, 270, 300)]
    assert lengths[0] == len(text)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] <= 501


def test_special_words_in_a_text_are_text():
    tokenizer = fitted(lambda: BPE(300))
    assert EOS not in tokenizer.encode("<eos><pad>")
    assert tokenizer.decode(tokenizer.encode("a<eos>b")) == "a<eos>b"
    assert json.loads(json.dumps(tokenizer.state())) == tokenizer.state()


@pytest.mark.parametrize("make", [Characters, Words, lambda: BPE(300)], ids=["characters", "words", "bpe"])
def test_an_empty_text_has_no_vocabulary(make):
    with pytest.raises(DataError, match=r"^data\.source: its training texts are empty"):
        fitted(make, "")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Words(min_freq=0), "min_freq must be at least 1, got 0"),
        (lambda: BPE(259), "size must be at least 260, all bytes and special tokens, got 259"),
    ],
    ids=["words", "bpe"],
)
def test_numbers_out_of_range_are_refused(make, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        make()


def test_byte_pairs_of_words_that_are_known_are_those_of_the_whole_text():
    draws = random.Random(0)
    texts = ["".join(draws.choices(" \t\n\x1c\x85\xa0 ab1.'ß²é<eos>世", k=draws.randint(0, 9))) for _ in range(3000)]
    tokenizer = BPE(400)
    tokenizer.fit([*texts, "a ab abb the words of a text"], pads=True)
    assert [tokenizer.encode(text) for text in texts] == [tokenizer._ids(text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == [tokenizer._ids(text) for text in texts]  # all are known now
    tokenizer.fit(["ab ab ab"], pads=True)
    assert tokenizer.encode("ab ab") == tokenizer._ids("ab ab")


@pytest.mark.parametrize(
    "make",
    [
        *EVERY.values(),
        lambda: Words(split="blanks"),
        lambda: Words(lower=True, line_end="<eos>"),
        lambda: Words(split="blanks", line_end="<eos>"),
    ],
    ids=[*EVERY, "blanks", "lines", "blanks and lines"],
)
@pytest.mark.parametrize("piece", [1, 7])
def test_a_long_text_is_learned_and_encoded_piece_by_piece(make, piece, monkeypatch):
    draws = random.Random(piece)
    texts = [TEXT, *("".join(draws.choices(" \t\n\x1c\x85\xa0 ab1.'ß²Éé世", k=n)) for n in range(3, 40))]
    whole = make()
    whole.fit(texts, pads=False)
    monkeypatch.setattr("attelbo.data.text.vocabulary.PIECE", piece)
    pieces = make()
    assert len(list(pieces.pieces(TEXT))) > 5
    pieces.fit(texts, pads=False)
    assert pieces.tokens == whole.tokens
    encoded = [pieces.encode_long(text) for text in texts]
    assert [tokens.tolist() for tokens in encoded] == [whole.encode(text) for text in texts]
    assert all(tokens.dtype == compact_dtype(whole.n_tokens) for tokens in encoded)
    assert pieces.encode_long("").tolist() == []


def test_a_tokenizer_of_ones_own_is_given_whole_texts(monkeypatch):
    class Lines(Words):
        def __init__(self) -> None:
            super().__init__()
            self.border = Tokenizer.border  # as of a class that says nothing

        def split(self, text: str) -> list[str]:
            return text.split(" and ")

    monkeypatch.setattr("attelbo.data.text.vocabulary.PIECE", 3)
    tokenizer = fitted(Lines, "one two and three and one two")
    assert tokenizer.encode_long("three and one two").tolist() == tokenizer.encode("three and one two") == [5, 4]


def test_the_same_pairs_of_bytes_are_learned_once(monkeypatch):
    """As of the jobs of a sweep; not those of other texts, another size or another division into texts."""
    from tokenizers import trainers

    learned, trainer = [], trainers.BpeTrainer
    monkeypatch.setattr(trainers, "BpeTrainer", lambda **given: learned.append(given) or trainer(**given))

    def fitted(size: int, *texts: str, pads: bool = True) -> BPE:
        tokenizer = BPE(size)
        tokenizer.fit(texts, pads)
        return tokenizer

    first, second = (fitted(270, "one once more", "only once") for _ in range(2))
    assert len(learned) == 1
    assert first.state() == second.state()
    assert first.tokens == second.tokens
    assert first.encode("once <eos> more") == second.encode("once <eos> more")
    fitted(271, "one once more", "only once")
    fitted(270, "one once moreonly", " once")
    fitted(270, "one once more", "only once", pads=False)
    assert len(learned) == 4
