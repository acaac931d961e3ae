"""Text to model: each token is predicted once, from what stands before it; documents keep apart."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.data import BOS, EOS, IGNORE, PAD, UNK, LanguageDataModule
from attelbo.data.kept import kept
from attelbo.data.text import ReferenceText, TextFile, TextFiles, TinyShakespeare, Words
from attelbo.data.text.streams import DocumentSplit, StreamSplit, pack, segments_of
from attelbo.data.text.vocabulary import SPECIALS, Tokenizer
from attelbo.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
TEXT = "".join(f"{i}. The line of number {i} is here.\n\n" for i in range(40))


def module(root=".", source=None, tokenizer="Characters", **changes):
    options = {"BPE": {"size": 300}, "Words": {"split": "blanks", "line_end": "<eos>"}}.get(tokenizer, {})
    arguments = {"name": "made up", "seed": 0, "batch_size": 4, "eval_batch_size": 3, "context": 16}
    return LanguageDataModule(
        source={"_target_": "attelbo.data.text.TextFile", "path": "text.txt"} if source is None else source,
        tokenizer={"_target_": f"attelbo.data.text.{tokenizer}", **options},
        root=str(root),
        **(arguments | changes),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def separated(**changes):
    return {"source": {"_target_": "attelbo.data.text.TextFile", "path": "text.txt", "separator": "\n\n"}, **changes}


def everything(data, split):
    return data.materialize(torch.arange(data.n_rows(split)), split)


def test_the_first_nine_tenths_are_for_training(folder):
    data = module(folder)
    n = int(len(TEXT) * 0.9)
    for split, text in (("train", TEXT[:n]), ("validation", TEXT[n:])):
        batch = everything(data, split)
        assert data.tokenizer.decode(batch.x.flatten()[: len(text) - 1].tolist()) == text[:-1]
    assert data.checksums()["test"] == data.checksums()["validation"]


@pytest.mark.parametrize("tokenizer", ["Characters", "Bytes", "BPE"])
@pytest.mark.parametrize("documents", ["stream", "packed", "padded", "bucketed"])
def test_evaluation_predicts_each_character_once(folder, tokenizer, documents):
    """Bits per character are of exactly the characters of the text, whatever the tokens and the rows."""
    data = module(folder, tokenizer=tokenizer, documents=documents, **separated())
    corpus = TextFile("text.txt", "\n\n").load(folder)
    lengths = torch.tensor(data.spec.token_lengths)
    for split in ("validation", "test"):
        y = everything(data, split).y
        predicted = y[y != IGNORE]
        if documents == "stream":
            text = "\n\n".join(corpus.validation)
            assert int(lengths[predicted].sum()) == len(text) - len(data.tokenizer.decode([int(batch_first(data))]))
        else:
            assert data.tokenizer.decode(predicted[predicted != EOS].tolist()) == "".join(corpus.validation)
            assert int(lengths[predicted].sum()) == sum(map(len, corpus.validation))
            assert (predicted == EOS).sum() == len(corpus.validation)


def test_the_words_are_those_of_the_training_text(folder):
    data = module(folder, tokenizer="Words", documents="padded", **separated())
    assert (everything(data, "validation").y == UNK).any()
    trained = set(everything(data, "train").x.flatten().tolist())
    assert trained - {PAD, BOS, EOS} == set(range(UNK + 1, data.spec.n_tokens))


def batch_first(data):
    return everything(data, "validation").x[0, 0]


@pytest.mark.parametrize(
    ("tokenizer", "documents"), [("Characters", "stream"), ("BPE", "stream"), ("BPE", "packed"), ("Words", "packed")]
)
def test_what_takes_long_to_tokenize_is_tokenized_once(tokenizer, documents, folder, monkeypatch):
    def made() -> LanguageDataModule:
        return module(folder, tokenizer=tokenizer, documents=documents)

    expected = made()
    expected.setup("fit")
    monkeypatch.setattr("attelbo.data.text.language.LONG_TEXT", 100)
    monkeypatch.setattr("attelbo.data.kept.LONG", 0.0)
    made().setup("fit")
    monkeypatch.setattr(Tokenizer, "fit", None)
    monkeypatch.setattr(Tokenizer, "encode_long", None)
    again = made()
    again.setup("fit")
    assert again.tokenizer.tokens == expected.tokenizer.tokens
    for split in ("train", "validation"):
        assert torch.equal(everything(again, split).x, everything(expected, split).x)
        assert torch.equal(everything(again, split).y, everything(expected, split).y)
    with (folder / "text.txt").open("a") as file:
        file.write("One more.")
    with pytest.raises(TypeError, match="NoneType"):
        made().setup("fit")


def test_what_a_class_of_a_notebook_makes_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("attelbo.data.kept.LONG", 0.0)
    cell = type("Own", (), {"__module__": "in_no_file"})
    for n in (1, 2):
        assert kept(tmp_path, ("the same",), cell, lambda n=n: np.array(n)) == n
    assert [kept(tmp_path, ("the same",), Tokenizer, lambda n=n: np.array(n)).item() for n in (1, 2)] == [1, 1]


def test_what_other_code_has_made_of_the_same_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("attelbo.data.kept.LONG", 0.0)
    code = tmp_path / "code.py"
    monkeypatch.setattr("inspect.getfile", lambda maker: str(code))
    for n, text in enumerate(("first", "second")):
        code.write_text(text)
        assert kept(tmp_path, ("the same",), Tokenizer, lambda n=n: np.array(n)) == n
        assert kept(tmp_path, ("another",), Tokenizer, lambda: np.array(7)) == 7
    assert sorted(np.load(file).item() for file in (tmp_path / ".prepared").iterdir()) == [1, 7]


@pytest.mark.parametrize("windows", ["random", "consecutive"])
def test_y_is_the_token_after_x(windows):
    tokens = torch.arange(2, 52, dtype=torch.uint8)
    split = StreamSplit(tokens, 8, windows, packed=False)
    batch = split.materialize(torch.arange(len(split)))
    assert batch.segments is None
    inside = batch.y != IGNORE
    assert torch.equal(batch.y[inside], batch.x[inside] + 1)
    assert len(split) == (42 if windows == "random" else 7)
    assert int((~inside).sum()) == (0 if windows == "random" else 7)
    assert (batch.x.dtype, batch.y.dtype) == (torch.int64, torch.int64)
    assert len(StreamSplit(tokens[:9], 8, windows, packed=False)) == 1
    if windows == "random":
        assert batch.x[[0, -1], 0].tolist() == [2, 43]
        assert batch.y[-1, -1] == 51


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_tokens_are_kept_small(dtype):
    split = StreamSplit(torch.full((20,), 255, dtype=torch.int32).to(dtype), 8, "consecutive", packed=False)
    assert split.tokens.dtype == dtype
    assert split.materialize(torch.tensor([0])).y.tolist() == [[255] * 8]


def test_packed_documents_are_numbered_and_keep_apart():
    documents = (torch.tensor(document, dtype=torch.uint8) for document in ([10, 11], [12], [13, 14, 15]))
    split = StreamSplit(pack(documents), 6, "consecutive", packed=True)
    batch = split.materialize(torch.arange(2))
    assert batch.x.tolist() == [[BOS, 10, 11, EOS, BOS, 12], [EOS, BOS, 13, 14, 15, PAD]]
    assert batch.y.tolist() == [[10, 11, EOS, IGNORE, 12, EOS], [IGNORE, 13, 14, 15, EOS, IGNORE]]
    assert batch.segments is not None
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, -1]]
    assert torch.equal(segments_of(batch.x), batch.segments)


def test_padded_documents_are_rows_and_long_ones_several():
    split = DocumentSplit([[10, 11], [12, 13, 14, 15, 16, 17]], 5)
    batch = split.materialize(torch.arange(3))
    assert batch.x.tolist() == [[BOS, 10, 11, PAD, PAD], [BOS, 12, 13, 14, 15], [16, 17, PAD, PAD, PAD]]
    assert batch.y.tolist() == [
        [10, 11, EOS, IGNORE, IGNORE],
        [12, 13, 14, 15, 16],
        [17, EOS, IGNORE, IGNORE, IGNORE],
    ]
    assert batch.segments.tolist() == [[0, 0, 0, -1, -1], [0] * 5, [0, 0, -1, -1, -1]]
    assert split.materialize(torch.tensor([0])).x.shape == (1, 3)


@pytest.mark.parametrize("length", [4, 5, 6, 9, 10, 11])
def test_padded_documents_lose_nothing_at_the_border_of_a_row(length):
    document = list(range(10, 10 + length))
    batch = DocumentSplit([document], 5).materialize(torch.arange(-(-(length + 1) // 5)))
    assert batch.y[batch.y != IGNORE].tolist() == [*document, EOS]


@pytest.mark.parametrize(("documents", "least", "most"), [("bucketed", 0.0, 0.05), ("padded", 0.2, 0.6)])
def test_documents_one_in_a_row_are_bucketed_if_wanted(folder, documents, least, most):
    (folder / "text.txt").write_text("\n\n".join("word " * (1 + 7 * i % 13) for i in range(300)))
    data = module(folder, documents=documents, context=80, **separated())
    order = data.training_rows(0, 0, 1)
    assert sorted(order.tolist()) == list(range(data.n_rows("train")))
    batches = [data.materialize(rows, "train") for rows in order.split(4)]
    padding = sum(int((batch.x == PAD).sum()) for batch in batches) / sum(batch.x.numel() for batch in batches)
    assert least <= padding < most


def test_random_windows_are_a_function_of_seed_and_epoch(folder):
    def windows(seed=0, epoch=0, rank=0, world_size=1):
        data = module(folder, windows="random", windows_per_epoch=2000, seed=seed)
        return data.training_rows(epoch, rank, world_size)

    first = windows()
    assert torch.equal(first, windows())
    assert not torch.equal(first, windows(epoch=1))
    assert not torch.equal(first, windows(seed=1))
    places = int(len(TEXT) * 0.9) - 16
    assert (int(first.min()), int(first.max())) == (0, places - 1)
    counts = first.bincount(minlength=places).double()
    assert ((counts - 2000 / places).square() / (2000 / places)).sum() < 1.3 * places
    assert torch.equal(torch.stack([windows(rank=rank, world_size=2) for rank in range(2)], 1).flatten(), first)


def test_an_epoch_of_random_windows(folder):
    assert len(list(module(folder, windows="random", windows_per_epoch=33).train_dataloader())) == 1
    assert module(folder, windows="random").rows_per_epoch == -(-(int(len(TEXT) * 0.9) - 16) // 16)
    consecutive = module(folder)
    assert consecutive.rows_per_epoch == consecutive.n_rows("train")


@pytest.mark.parametrize("options", [{}, {"windows": "random"}, separated(documents="padded")], ids=str)
def test_train_size_keeps_the_first_rows(folder, options):
    few = module(folder, train_size=5, **options)
    assert few.n_rows("train") == 5
    assert int(few.training_rows(0, 0, 1).max()) < 5
    assert few.checksums()["test"] == module(folder, **options).checksums()["test"]


@pytest.mark.parametrize("masked", [0.0, 0.15])
def test_an_evaluation_sees_each_token_that_was_trained_on_once(folder, masked):
    """Those that any window to train on may hold, in windows that follow each other; what is hidden is drawn once."""
    data = module(folder, windows="random", train_size=50, masked=masked)
    assert data.n_rows("train") == 50
    batch = everything(data, "trained")
    n = 50 - 1 + 16
    n -= n % 16 if masked else 0
    text = TEXT[: n + 1]
    told = torch.where(batch.y == IGNORE, batch.x, batch.y) if masked else batch.x
    assert data.tokenizer.decode(told.flatten()[:n].tolist()) == text[:-1]
    if not masked:
        assert data.tokenizer.decode(batch.y[batch.y != IGNORE].tolist()) == text[1:]
    assert torch.equal(batch.x, everything(data, "trained").x)
    plain = module(folder, train_size=3)
    assert torch.equal(everything(plain, "trained").x, everything(plain, "train").x)
    assert plain.n_rows("trained") == 3


def test_a_run_without_its_corpus_knows_its_vocabulary(folder, tmp_path):
    data = module(folder, tokenizer="BPE", **separated(documents="packed"))
    spec = data.spec
    assert (spec.kind, spec.shape, spec.pads, spec.n_tokens) == ("tokens", (16,), True, 300)
    data.save_state(tmp_path / "run")
    elsewhere = module("/nowhere", tokenizer="BPE", documents="packed")
    elsewhere.load_state(tmp_path / "run")
    assert elsewhere.spec == spec
    assert elsewhere.tokenizer.decode(elsewhere.tokenizer.encode("The line")) == "The line"


def test_a_folder_of_documents(tmp_path):
    for i, text in enumerate(["one", "two", "three", "four"]):
        (tmp_path / f"{i}.txt").write_text(text)
    (tmp_path / "notes.md").write_text("not one")
    corpus = TextFile(str(tmp_path), validation_share=0.3).load(Path("/elsewhere"))
    assert corpus.train == ["one", "two"]
    assert corpus.validation == corpus.test == ["three", "four"]
    with pytest.raises(DataError, match=r"holds no \.txt file; data=reference_text needs no files$"):
        TextFile(str(tmp_path / "..")).load(tmp_path)


@pytest.mark.parametrize(("split", "between"), [("punctuation", {"-"}), ("blanks", {"---"})])
def test_what_stands_between_documents_is_in_the_vocabulary_of_a_stream(tmp_path, split, between):
    texts = [f"words of document {i % 3}\n" for i in range(30)]
    (tmp_path / "text.txt").write_text("---\n".join(texts))
    words = {"words", "of", "document", "0", "1", "2"}
    for documents in ("stream", "packed"):
        data = module(tmp_path, tokenizer="Words", documents=documents, **separated())
        data.source = TextFile("text.txt", separator="---\n")
        data.tokenizer = Words(split)
        data.setup()
        assert set(data.tokenizer.tokens) - set(SPECIALS) == words | (between if documents == "stream" else set())


def test_a_file_for_each_split(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one<|end|>two<|end|>"))
    (tmp_path / "b").write_text("three")
    (tmp_path / "c").write_text("four")
    corpus = TextFiles("a.gz", "b", "c", separator="<|end|>").load(tmp_path)
    assert corpus == (["one", "two"], ["three"], ["four"], "<|end|>")


def test_files_of_other_systems_hold_the_same_text(tmp_path):
    texts = "one\ntwo\n\nthree\r\n\nfour"
    for name, written in (("a", texts), ("b", "\ufeff" + texts.replace("\r", "").replace("\n", "\r\n"))):
        (tmp_path / name).write_bytes(written.encode())
    corpora = [TextFile(name, separator="\n\n").load(tmp_path) for name in "ab"]
    assert corpora[0] == corpora[1] == (["one\ntwo", "three"], ["four"], ["four"], "\n\n")


@pytest.mark.parametrize(
    ("content", "options", "error", "told"),
    [
        (None, {}, DataError, r"text\.txt: no such file; data\.source says which"),
        ("", {}, DataError, r"text\.txt is empty$"),
        ("  \n\n", {}, DataError, r"text\.txt is empty$"),
        ("a", {}, DataError, r"text\.txt is too short to keep a share for validation; data=ref"),
        ("short", {}, ConfigError, r"^data\.context=16 needs 17 tokens, the train text of made up has 4$"),
        ("as long as that", {"context": 4}, ConfigError, r"needs 2 tokens, the validation text of made up has 2$"),
        ("-\n\n--", separated(source={"_target_": "attelbo.data.text.TextFile", "path": "text.txt", "separator": "-"}),
         ConfigError, r"^data\.source\.separator: there is nothing between '-'$"),
    ],
)  # fmt: skip
def test_texts_that_are_too_short_are_told(tmp_path, content, options, error, told):
    if content is not None:
        (tmp_path / "text.txt").write_text(content)
    if "has 2" in told:
        (tmp_path / "text.txt").write_text(content[:10])
        told = told.replace("has 2", "has 1")
    with pytest.raises(error, match=told):
        module(tmp_path, **options).setup()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"train_size": 0}, "train_size must be at least 1, got 0"),
        ({"windows": "random", "windows_per_epoch": 0}, "windows_per_epoch must be at least 1, got 0"),
        ({"windows_per_epoch": 9}, "windows_per_epoch must be null where windows are consecutive"),
        (
            {"windows": "random", "documents": "padded"},
            "windows must be 'consecutive' for padded documents, which are ",
        ),
        (
            {"windows": "random", "documents": "bucketed"},
            "windows must be 'consecutive' for bucketed documents, which are ",
        ),
    ],
)
def test_options_that_contradict_are_refused(options, told):
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        module(**options)


def test_the_share_is_a_share():
    with pytest.raises(ValueError, match=r"^validation_share must be between 0 and 1, got 1$"):
        TextFile("x", validation_share=1)
    with pytest.raises(ValueError, match=r"^separator must not be empty"):
        TextFile("x", separator="")


def test_the_reference_is_there():
    corpus = ReferenceText().load(Path("/nowhere"))
    assert [len(part) for part in corpus[:2]] > [50, 5]
    assert sum(len(text) for text in corpus.train) > 200_000
    assert "identifier" in corpus.train[0] + corpus.train[1] + corpus.train[2]


def test_no_paragraph_of_the_reference_is_in_two_splits():
    """A topic such as "class" is a part of another, "compound", which is in another split."""
    corpus = ReferenceText().load(Path("/nowhere"))
    paragraphs = [" ".join(each.split()) for part in corpus[:3] for text in part for each in text.split("\n\n")]
    assert len(paragraphs) == len(set(paragraphs)) > 500
    train, *others = ("\n".join(part) for part in corpus[:3])
    for text in others:  # nor what is longer than a turn of phrase
        pieces = [text[start : start + 64] for start in range(0, len(text) - 64, 64)]
        words = [piece for piece in pieces if sum(map(str.isalpha, piece)) > 32]  # not the rulers of tables
        assert sum(piece in train for piece in words) < 0.01 * len(words)


def test_shakespeare_is_the_published_one(data_folder):
    if TinyShakespeare().missing(data_folder):
        pytest.skip(f"no tinyshakespeare in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    source = {"_target_": "attelbo.data.text.TinyShakespeare"}
    data = module(data_folder, source, context=64, windows="random")
    assert data.spec.n_tokens == 65
    assert data.n_rows("train") == 1_003_854 - 64  # as nanoGPT draws them
    y = everything(data, "validation").y
    assert int((y != IGNORE).sum()) == 111_540 - 1
    assert data.tokenizer.decode(data.materialize(torch.tensor([0]), "train").x[0, :14].tolist()) == "First Citizen:"


def test_penn_treebank_is_the_published_one(data_folder):
    if not (data_folder / "ptb" / "ptb.train.txt").is_file():
        pytest.skip(f"no ptb/ptb.train.txt in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    names = {
        split: f"ptb/ptb.{name}.txt" for split, name in (("train", "train"), ("validation", "valid"), ("test", "test"))
    }
    data = module(
        data_folder,
        {"_target_": "attelbo.data.text.TextFiles", **names},
        context=35,
        tokenizer="Words",
    )
    assert data.spec.n_tokens == 10_000
    counts = [int((everything(data, split).y != IGNORE).sum()) + 1 for split in SPLITS]
    assert counts == [929_589, 73_760, 82_430]


def test_shakespeare_that_is_missing(tmp_path, no_network):
    data = module(tmp_path, {"_target_": "attelbo.data.text.TinyShakespeare"})
    with pytest.raises(
        DataError, match=r"^TinyShakespeare: missing in .*input\.txt \(MD5 6fb458f1.*reference_text needs"
    ):
        data.prepare_data()
