"""IMDB and AG News from small files of their form: every text with its label; damage is told."""

import csv
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from attelbo.data.files import DataFile
from attelbo.data.text import IMDB, AGNews, ag_news, imdb
from attelbo.errors import DataError
from attelbo.experiments.configuration import compose
from attelbo.models import build_data

REVIEWS = {
    f"aclImdb/{part}/{label}/{i}_{8 if label == 'pos' else 2}.txt": f"{part} film {i} is {label}.<br /><br />Ærø"
    for part, n in (("train", 20), ("test", 3))
    for label in ("neg", "pos")
    for i in range(n)
}


def write_imdb(root: Path, monkeypatch, reviews: dict[str, str] = REVIEWS, encoding: str = "utf-8") -> Path:
    others = {
        "aclImdb/README": "of the data set",
        "aclImdb/train/unsup/0_0.txt": "without a label",
        "aclImdb/train/labeledBow.feat": "9 0:9",
    }
    path = root / imdb.FILE.path
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (others | reviews).items():
            (member := tarfile.TarInfo(name)).size = len(content := text.encode(encoding))
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(imdb, "FILE", DataFile(imdb.FILE.path, hashlib.md5(path.read_bytes()).hexdigest()))
    return path


def write_news(root: Path, monkeypatch, rows: dict[str, list[list[str]]]) -> None:
    (root / "ag_news").mkdir(exist_ok=True)
    for part, lines in rows.items():
        with (root / "ag_news" / f"{part}.csv").open("w", newline="") as stream:
            csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(lines)
        digest = hashlib.md5((root / "ag_news" / f"{part}.csv").read_bytes()).hexdigest()
        monkeypatch.setitem(ag_news.MD5, part, digest)


def news(n: int) -> list[list[str]]:
    return [[str(i % 4 + 1), f'Title "{i}"', f"of topic {i % 4}, with\\na comma"] for i in range(n)]


def test_reviews_have_their_labels(tmp_path, monkeypatch):
    write_imdb(tmp_path, monkeypatch)
    texts = IMDB().load(tmp_path)
    assert texts.validation is None
    for part, rows in (("train", texts.train), ("test", texts.test)):
        expected = {(text, name.split("/")[2]) for name, text in REVIEWS.items() if f"/{part}/" in name}
        assert set(zip(*rows, strict=True)) == expected
        assert len(rows.texts) == len(expected)


def test_news_have_their_topics(tmp_path, monkeypatch):
    write_news(tmp_path, monkeypatch, {"train": news(40), "test": news(6)})
    texts = AGNews().load(tmp_path)
    topics = ["world", "sports", "business", "science and technology"]
    assert texts.validation is None
    assert texts.train.labels == [topics[i % 4] for i in range(40)]
    assert texts.test.texts == [f'Title "{i}" of topic {i % 4}, with\\na comma' for i in range(6)]


@pytest.mark.parametrize(("name", "n_classes"), [("imdb", 2), ("ag_news", 4)])
def test_as_a_data_module(name, n_classes, tmp_path, monkeypatch):
    write_imdb(tmp_path, monkeypatch)
    write_news(tmp_path, monkeypatch, {"train": news(40), "test": news(6)})
    data = build_data(compose("train", ["~experiment", f"data={name}", f"paths.data_dir={tmp_path}"]).config)
    data.setup()
    assert data.spec.n_classes == n_classes
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [36, 4, 6]


def test_damaged_or_missing_reviews(tmp_path, monkeypatch, no_network):
    path = write_imdb(tmp_path, monkeypatch, {name: text for name, text in REVIEWS.items() if "/test/" not in name})
    with pytest.raises(DataError, match=r"is damaged: not the archive of IMDB .*no reviews in test"):
        IMDB().load(tmp_path)
    path = write_imdb(tmp_path, monkeypatch, encoding="latin-1")
    with pytest.raises(DataError, match=r"is damaged: not the archive of IMDB .*utf-8"):
        IMDB().load(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged: its MD5 sum"):
        IMDB().load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"^IMDB: missing in .*aclImdb_v1\.tar\.gz \(MD5 .*no route to host"):
        IMDB().prepare(tmp_path)


@pytest.mark.parametrize("row", [["5", "of", "no topic"], ["1", "no text"], ["1", "a", "column", "more"]])
def test_damaged_or_missing_news(row, tmp_path, monkeypatch, no_network):
    write_news(tmp_path, monkeypatch, {"train": news(4), "test": [*news(3), row]})
    with pytest.raises(DataError, match=r"test\.csv is damaged: no rows of topic, title and text"):
        AGNews().load(tmp_path)
    (tmp_path / "ag_news" / "train.csv").unlink()
    with pytest.raises(DataError, match=r"^AGNews: missing in .*: ag_news/train\.csv \(MD5 \w+\); .*no route to host"):
        AGNews().prepare(tmp_path)
