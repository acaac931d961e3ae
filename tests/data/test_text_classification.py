"""Labelled texts: CSV files, lines, names of characters; classes and lengths."""

import csv
import re
import unicodedata
from pathlib import Path

import pytest
import torch

from attelbo.data import BOS, EOS, UNK, TextClassificationDataModule
from attelbo.data.text import LabelledCSV, LabelledLines, UnicodeNames
from attelbo.data.text.vocabulary import SPECIALS
from attelbo.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


def module(root, source="LabelledLines", options=None, tokenizer="Words", **changes):
    files = {split: f"{split}.txt" for split in SPLITS} if options is None else options
    arguments = {"name": "made up", "seed": 0, "batch_size": 4, "eval_batch_size": 5, "max_length": 9}
    return TextClassificationDataModule(
        source={"_target_": f"attelbo.data.text.{source}", **files},
        tokenizer={"_target_": f"attelbo.data.text.{tokenizer}"},
        root=str(root),
        **(arguments | changes),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, n in (("train", 20), ("validation", 6), ("test", 4)):
        lines = [f"{'good' if i % 3 else 'bad'} sentence {'very ' * (i % 4)}{i}" for i in range(n)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def everything(data, split):
    return data.materialize(torch.arange(data.n_rows(split)), split)


def test_lines_are_labels_and_sentences(folder):
    data = module(folder)
    assert data.spec.n_classes == 2
    assert data.classes.names == ("bad", "good")
    assert [data.n_rows(split) for split in SPLITS] == [20, 6, 4]
    batch = everything(data, "test")
    assert batch.y.tolist() == [0, 1, 1, 0]
    assert data.tokenizer.decode(batch.x[2].tolist()) == "sentence very very 2"
    assert batch.x[0].tolist()[:1] == [BOS]
    assert batch.x[3, -1] == EOS
    assert data.crops(torch.device("cpu"))


def test_splits_without_a_file_are_shares_of_the_training_rows(folder):
    data = module(folder, options={"train": "train.txt", "test": "test.txt"}, validation_share=0.25)
    assert [data.n_rows(split) for split in SPLITS] == [15, 5, 4]
    alone = module(folder, options={"train": "train.txt"}, validation_share=0.25, tokenizer="Characters", max_length=99)
    assert [alone.n_rows(split) for split in SPLITS] == [10, 5, 5]
    sentences = [alone.tokenizer.decode(row) for split in SPLITS for row in everything(alone, split).x.tolist()]
    expected = [line.split(maxsplit=1)[1] for line in (folder / "train.txt").read_text().splitlines()]
    assert sorted(sentences) == sorted(expected)
    again = module(folder, options={"train": "train.txt"}, validation_share=0.25, seed=7)
    assert again.checksums() == module(folder, options={"train": "train.txt"}, validation_share=0.25).checksums()
    with pytest.raises(ConfigError, match=r"^data\.validation_share=0\.01 of 20 texts is less than one$"):
        module(folder, options={"train": "train.txt"}, validation_share=0.01).setup()


def test_the_words_are_those_of_the_training_texts(folder):
    data = module(folder, options={"train": "train.txt"}, validation_share=0.25)
    words = {word for row in everything(data, "train").x.tolist() for word in data.tokenizer.decode(row).split()}
    assert set(data.tokenizer.tokens) == {*SPECIALS, *words}
    assert (everything(data, "test").x == UNK).any()


def test_columns_of_a_csv_file(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid;what;kind\n1;"a; quoted\nline";x\n2;plain; y \n', encoding="utf-8")
    source = LabelledCSV("a.csv", text="what", label="kind", delimiter=";")
    assert source.load(tmp_path).train == (["a; quoted\nline", "plain"], ["x", "y"])
    assert source.load(tmp_path)[1:] == (None, None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,class\na,b\n", "has no column 'label'; it has 'text', 'class'"),
        ("text,label\n", "has no row but the first"),
        ("text,label\na,b\nc\n", "line 3: fewer columns than the first line"),
        ("\n", "is empty"),
        (
            "text,label\nWell, well,good\n",
            "line 2: more columns than the first line; a text that holds ',' stands between quotes",
        ),
        ("text,label\na,b\n\nc,\n", "line 4: its 'label' is empty"),
        ("label,text,text\na,b,c\n", "has 2 columns 'text'; it has 'label', 'text', 'text'"),
        (
            'label,text\na,b\nc,"d\ne,f\n',
            "line 3: a quote that begins a text ends it too, and those in it are doubled (unexpected end of data)",
        ),
        (
            'text,label\n"a" b,c\n',
            "line 2: a quote that begins a text ends it too, and those in it are doubled (',' expected after '\"')",
        ),
    ],
)
def test_csv_files_with_faults_are_told(tmp_path, content, told):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=rf"a\.csv,? {re.escape(told)}$"):
        LabelledCSV("a.csv").load(tmp_path)


def test_texts_of_a_csv_file_may_be_long(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"text,label,note\n{'a ' * 100_000},b\n")
    assert LabelledCSV("a.csv").load(tmp_path).train == (["a " * 100_000], ["b"])
    assert csv.field_size_limit() == limit


def test_lines_with_faults_are_told(folder):
    (folder / "test.txt").write_text("good one\nbad\n")
    with pytest.raises(DataError, match=r"test\.txt, line 2: expected a label, a blank and a sentence$"):
        module(folder).setup()


def test_encodings(tmp_path):
    (tmp_path / "a").write_bytes("0 caf\xe9\n".encode("latin-1"))
    assert LabelledLines("a", encoding="latin-1").load(tmp_path).train == (["café"], ["0"])
    with pytest.raises(DataError, match=r"a is not UTF-8: byte 5 is 0xe9$"):
        LabelledLines("a").load(tmp_path)
    (tmp_path / "b").write_bytes(b"0 \x80")
    with pytest.raises(DataError, match=r"b is not PUNYCODE: .+"):
        LabelledLines("b", encoding="punycode").load(tmp_path)
    (tmp_path / "c").write_text("0 sixteen\n1 bits\n", encoding="utf-16")
    assert LabelledLines("c", encoding="utf-16").load(tmp_path).train == (["sixteen", "bits"], ["0", "1"])


@pytest.mark.parametrize("encoding", ["latin-99", "hex", "base64", "rot13", "zip", "undefined", "a\0"])
def test_what_is_no_encoding_of_text(encoding):
    told = f"encoding must be one of text that Python knows, got {encoding!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        LabelledCSV("a", encoding=encoding)


@pytest.mark.parametrize("delimiter", ["", ", ", "\n", "\r", '"'])
def test_what_is_no_delimiter(delimiter):
    with pytest.raises(ValueError, match=r"^delimiter must be one character"):
        LabelledCSV("a", delimiter=delimiter)


def test_a_class_that_is_not_trained_on_is_told(folder):
    (folder / "test.txt").write_text("ugly sentence\n")
    with pytest.raises(
        DataError, match=r"^made up: no test text may be of class 'ugly', of which none is to train on$"
    ):
        module(folder).setup()


def test_longer_texts_are_refused_or_cut(folder):
    told = (
        r"^data\.max_length must be at least 7, BOS and EOS among them, for the train text 'sentence very very very "
        r"1?\d', got 4: raise it or set data\.cut_longer=true$"
    )
    with pytest.raises(ConfigError, match=told):
        module(folder, max_length=4).setup()
    cut = module(folder, max_length=4, cut_longer=True)
    batch = everything(cut, "train")
    assert batch.x.shape == (20, 4)
    texts = {cut.tokenizer.decode(row) for row in batch.x.tolist()}
    assert texts == {"sentence very", *(f"sentence {i}" for i in range(0, 20, 4))}


def test_a_run_without_its_texts_knows_vocabulary_and_classes(folder, tmp_path):
    data = module(folder)
    spec = data.spec
    data.save_state(tmp_path / "run")
    elsewhere = module("/nowhere")
    elsewhere.load_state(tmp_path / "run")
    assert (elsewhere.spec, elsewhere.classes.names) == (spec, ("bad", "good"))


def test_minibatches_hold_every_row_once(folder):
    order = module(folder).training_rows(0, 0, 1)
    assert sorted(order.tolist()) == list(range(20))
    few = module(folder, train_size=7)
    assert few.n_rows("train") == 7
    assert set(everything(few, "train").y.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_length": 2}, "max_length must be at least 3, got 2"),
        ({"validation_share": 0.5}, "validation_share must be between 0 and 0.5, got 0.5"),
        ({"train_size": 0}, "train_size must be at least 1, got 0"),
        (
            {"source": "LabelledCSV", "options": {"train": "a", "delimiter": ""}},
            "source.delimiter must be one character, no quote and no end of a line, got ''",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        module(".", **options)


def test_names_of_characters_have_their_category():
    texts, labels = UnicodeNames().load(Path()).train
    assert (len(texts), len(set(labels)), len(set(texts))) == (12_702, 18, 12_702)
    for text, label in zip(texts[::97], labels[::97], strict=True):
        character = unicodedata.lookup(text.upper())
        assert unicodedata.ucd_3_2_0.category(character) == label
    assert dict(zip(texts, labels, strict=True))["latin small letter o with stroke"] == "Ll"


def test_sentences_are_the_published_ones(data_folder):
    folder = data_folder / "sentence_classification"
    if not (folder / "TREC.train.all").is_file():
        pytest.skip(f"no sentence_classification in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    trec = LabelledLines("TREC.train.all", None, "TREC.test.all", "latin-1").load(folder)
    assert (len(trec.train.texts), len(trec.test.texts), len(set(trec.train.labels))) == (5_452, 500, 6)
    sst = LabelledLines(*(f"stsa.binary.{split}" for split in ("train", "dev", "test"))).load(folder)
    assert [len(part.texts) for part in sst] == [6_920, 872, 1_821]
