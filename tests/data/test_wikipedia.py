"""text8, enwik8 and WikiText from small files of their form: where they are split, what a character and a word is."""

import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from attelbo.data import IGNORE
from attelbo.data.files import DataFile
from attelbo.data.text import Enwik8, Text8, WikiText, wikipedia
from attelbo.errors import DataError
from attelbo.experiments.configuration import compose
from attelbo.models import build_data

WORDS = "anarchism originated as a term of abuse first used against early working class radicals "
XML = "<page>\n    <title>Ærø</title>\n  <text>''Ærø'' — &quot;Arrø&quot; 日本</text>\n".encode()
ARTICLE = " \n = Valkyria Chronicles = \n \n The game , <unk> @-@ like , is the third . It sold well . \n \n"


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def given(source, content: bytes, root: Path, monkeypatch) -> Path:
    """The file in its place, its sum known."""
    path = root / source.file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setattr(source, "file", DataFile(source.file.path, hashlib.md5(content).hexdigest()))
    return path


def tokens_of(root: Path, *words: str) -> tuple:
    config = compose("train", ["~experiment", f"paths.data_dir={root}", "data.windows_per_epoch=null", *words]).config
    data = build_data(config)
    data.setup()
    return data, {split: data._split(split).tokens for split in ("train", "validation", "test")}


@pytest.mark.parametrize(
    ("name", "source", "content", "kinds"),
    [("text8", Text8, WORDS.encode() * 200, len(set(WORDS))), ("enwik8", Enwik8, XML * 200, len(set(XML)))],
)
def test_a_token_is_a_byte_and_a_twentieth_is_to_test_on(name, source, content, kinds, tmp_path, monkeypatch):
    given(source, content, tmp_path, monkeypatch)
    n = len(content)
    train, validation, test = (text.encode("latin-1") for (text,) in source().load(tmp_path)[:3])
    assert train + validation + test == content
    assert len(validation) == len(test) == n // 20
    data, tokens = tokens_of(tmp_path, f"data={name}", "data.context=32", "data.windows=consecutive")
    assert data.spec.n_tokens == kinds
    assert set(data.spec.token_lengths) == {1}
    alphabet = sorted(set(content))
    read = bytes(alphabet[token] for token in tokens["test"][: len(test) - 1])
    assert read == test[:-1]


def test_the_splits_of_100_000_000_bytes(monkeypatch):
    """90, 5 and 5 million, as in papers, whatever the share of a small file."""
    monkeypatch.setattr(wikipedia, "read_verified", lambda *_: b"x" * 100_000_000)
    monkeypatch.setattr(Text8, "missing", lambda *_: [])
    corpus = Text8().load(Path())
    assert [len(text) for (text,) in corpus[:3]] == [90_000_000, 5_000_000, 5_000_000]


def test_a_text_is_downloaded_before_its_vocabulary_is_asked_for(tmp_path, monkeypatch):
    """As a training does, whose model is built for that."""
    content = WORDS.encode() * 9
    monkeypatch.setattr(Text8, "prepare", lambda self, root: given(Text8, content, root, monkeypatch) and None)
    config = compose("train", ["~experiment", f"paths.data_dir={tmp_path}", "data=text8", "data.context=32"]).config
    assert build_data(config).spec.n_tokens == len(set(WORDS))


def test_what_is_downloaded_is_taken_out_of_its_zip_file(tmp_path, monkeypatch):
    content = WORDS.encode() * 9
    monkeypatch.setattr(Text8, "file", DataFile("text8/text8", hashlib.md5(content).hexdigest()))

    def download(url, root, filename=None, md5=None):
        assert url == "http://mattmahoney.net/dc/text8.zip"
        Path(root).mkdir(parents=True, exist_ok=True)
        (Path(root) / Path(url).name).write_bytes(zipped(text8=sent))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    sent = content[:-1]
    with pytest.raises(DataError, match=r"^Text8: .*its MD5 sum is not the published one"):
        Text8().prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
    sent = content
    Text8().prepare(tmp_path)
    assert (tmp_path / "text8" / "text8").read_bytes() == content
    assert [path.name for path in (tmp_path / "text8").iterdir()] == ["text8"]


def wikitext(root: Path, monkeypatch, name: str, suffix: str, **changed: bytes) -> Path:
    parts = {"train": ARTICLE * 20, "valid": ARTICLE, "test": ARTICLE * 2}
    members = {f"{name}/wiki.{part}.{suffix}": text.encode() for part, text in parts.items()}
    path = root / "wikitext" / f"{name}-v1.zip"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zipped(**(members | changed)))
    monkeypatch.setitem(wikipedia.MD5, name, hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("size", [2, 103])
def test_words_are_counted_as_in_the_paper(size, tmp_path, monkeypatch):
    """Each end of a line is a word."""
    wikitext(tmp_path, monkeypatch, f"wikitext-{size}", "tokens")
    data, tokens = tokens_of(tmp_path, f"data=wikitext{size}", "data.context=20")
    counts = Counter((ARTICLE * 20).split())
    assert data.spec.n_tokens == len(counts) + 1
    n_words = {"train": 20, "validation": 1, "test": 2}
    for split, copies in n_words.items():
        n = copies * (len(ARTICLE.split()) + ARTICLE.count("\n"))
        batch = data.materialize(torch.arange(data.n_rows(split)), split)
        assert int((batch.y != IGNORE).sum()) == n - 1
    assert data.tokenizer.decode(tokens["test"][:6].tolist()) == "<eos> = Valkyria Chronicles = <eos>"


def test_raw_text_is_read_by_byte(tmp_path, monkeypatch):
    wikitext(tmp_path, monkeypatch, "wikitext-2-raw", "raw")
    words = ("data=wikitext2", "data/tokenizer=bytes", "data.source.raw=true")
    _, tokens = tokens_of(tmp_path, *words, "data.context=20")
    assert bytes(tokens["test"].tolist()).startswith((ARTICLE * 2).encode()[:-1])


def test_damaged_or_missing(tmp_path, monkeypatch, no_network):
    path = wikitext(tmp_path, monkeypatch, "wikitext-2", "tokens", **{"wikitext-2/wiki.test.tokens": b"\xff"})
    with pytest.raises(DataError, match=r"wikitext-2-v1\.zip is damaged: not the archive of WikiText .*utf-8"):
        WikiText().load(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        WikiText().load(tmp_path)
    path.write_bytes(zipped(other=b""))
    monkeypatch.setitem(wikipedia.MD5, "wikitext-2", hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"not the archive of WikiText .*wiki\.train\.tokens"):
        WikiText().load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"^WikiText: missing in .*wikitext-2-v1\.zip \(MD5 .*no route to host"):
        WikiText().prepare(tmp_path)
    path = given(Enwik8, XML, tmp_path, monkeypatch)
    path.write_bytes(XML[:-1])
    with pytest.raises(DataError, match="enwik8 is damaged: its MD5 sum"):
        Enwik8().load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"^Enwik8: missing in .*no route to host"):
        Enwik8().prepare(tmp_path)
