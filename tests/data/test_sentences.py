"""Texts as rows: what is in them, what is left out, what is refused."""

import pytest
import torch

from attelbo.data import BOS, EOS, PAD, SentenceDataModule
from attelbo.data.text import ReferenceSentences
from attelbo.errors import ConfigError, DataError

WORDS = {"_target_": "attelbo.data.text.Words", "split": "blanks"}
TRAIN = " the dog sleeps \n the quick fox jumps over the dog \n a fox \n the dog \n"


def made(folder, *, validation=" the fox sleeps \n", test=" a dog \n", **options) -> SentenceDataModule:
    for name, content in (("train", TRAIN), ("validation", validation), ("test", test)):
        (folder / f"{name}.txt").write_text(content)
    source = {
        "_target_": "attelbo.data.text.TextFiles",
        **{name: f"{name}.txt" for name in ("train", "validation", "test")},
        "separator": "\n",
    }
    given = {"max_length": 9, "batch_size": 2, "eval_batch_size": 2, "root": str(folder), "seed": 0}
    return SentenceDataModule(name="lines", source=source, tokenizer=WORDS, **(given | options))


def test_a_line_is_a_row_from_its_beginning_to_its_end(tmp_path) -> None:
    data = made(tmp_path)
    spec = data.spec
    assert (spec.shape, spec.kind, spec.pads, spec.target) == ((9,), "tokens", True, None)
    batch = data.materialize(torch.arange(4), "train")
    assert batch.y is None
    assert batch.segments is None
    assert batch.x.shape == (4, 9)  # on a CPU that of the longest
    assert (batch.x[:, 0] == BOS).all()
    assert ((batch.x == EOS).sum(1) == 1).all()
    assert (batch.x == PAD).sum(1).tolist() == [4, 0, 5, 5]
    written = [data.tokenizer.decode(row) for row in batch.x.tolist()]
    assert written == [line.strip() for line in TRAIN.strip().split("\n")]


def test_minibatches_are_similarly_long_and_hold_every_row(tmp_path) -> None:
    data = made(tmp_path)
    rows = data.training_rows(0, 0, 1)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    lengths = (data.materialize(torch.arange(4), "train").x != PAD).sum(1)[rows].tolist()
    assert sorted([sorted(lengths[:2]), sorted(lengths[2:])]) == [[4, 4], [5, 9]]


def test_an_unknown_word_is_unknown_and_a_vocabulary_is_that_of_training(tmp_path) -> None:
    data = made(tmp_path, test=" a zebra \n")
    text = data.tokenizer.decode(data.materialize(torch.tensor([0]), "test").x[0].tolist())
    assert text == "a <unk>"


def test_the_vocabulary_is_kept(tmp_path) -> None:
    data = made(tmp_path)
    data.setup()
    data.save_state(tmp_path)
    other = made(tmp_path)
    other.load_state(tmp_path)
    (tmp_path / "train.txt").unlink()
    assert other.spec == data.spec
    with pytest.raises(DataError, match=r"train\.txt"):
        other.setup()


def test_longer_texts_are_refused_or_left_out_of_training(tmp_path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^data\.max_length must be at least 9, the tokens of the longest train text, BOS and EOS among them, "
        r"got 5: raise it or set data\.drop_longer=true$",
    ):
        made(tmp_path, max_length=5).setup()
    assert made(tmp_path, max_length=5, drop_longer=True).n_rows("train") == 3
    with pytest.raises(ConfigError, match=r"longest test text, .* got 5: raise it$"):
        made(tmp_path, max_length=5, drop_longer=True, test=TRAIN).setup()
    with pytest.raises(ConfigError, match=r"^data: lines has no train text of at most 3 tokens$"):
        made(tmp_path, max_length=3, drop_longer=True).setup()


def test_fewer_rows_keep_the_vocabulary_of_all(tmp_path) -> None:
    few, all_of_them = made(tmp_path, train_size=1), made(tmp_path)
    assert few.n_rows("train") == 1
    assert few.spec == all_of_them.spec


@pytest.mark.parametrize(("name", "number", "least"), [("max_length", 2, 3), ("train_size", 0, 1)])
def test_numbers_out_of_range(tmp_path, name, number, least) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be at least {least}, got {number}$"):
        made(tmp_path, **{name: number})


# -- sentences of the reference ----------------------------------------------------------------------------------


def test_sentences_of_the_reference_are_sentences_and_of_one_split_each(tmp_path) -> None:
    corpus = ReferenceSentences().load(tmp_path)
    splits = (corpus.train, corpus.validation, corpus.test)
    together = [sentence for split in splits for sentence in split]
    assert len(together) > 1000
    assert len(set(together)) == len(together)
    for sentence in together:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert len(sentence) <= 160
    assert abs(len(corpus.validation) - len(corpus.train) / 8) < 2
    assert abs(len(corpus.test) - len(corpus.train) / 8) < 2


def test_a_paragraph_is_cut_where_sentences_begin() -> None:
    text = "First of all, this.  And\nthen that is it. x = 3.\n\n* A bullet. It ends (see here).\n\n   code [1].\n"
    found = ReferenceSentences()._sentences(text)
    assert found == ["First of all, this.", "A bullet.", "It ends (see here)."]


def test_no_sentence_shorter_than_one_character() -> None:
    with pytest.raises(ValueError, match=r"^longest must be at least 1, got 0$"):
        ReferenceSentences(0)
