"""Parallel text: aligned files, generated dates, Multi30k; vocabularies and lengths."""

import datetime
import gzip
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import seed_everything

from attelbo.data import BOS, EOS, PAD, ParallelDataModule
from attelbo.data.loader import training_order
from attelbo.data.text import AlignedFiles, Dates, Multi30k
from attelbo.data.text.dates import FORMATS, N_DAYS
from attelbo.errors import ConfigError, DataError

WORDS = {"_target_": "attelbo.data.text.Words", "lower": True}
CHARACTERS = {"_target_": "attelbo.data.text.Characters"}


def module(source, root=".", tokenizer=CHARACTERS, **changes):
    arguments = {"name": "made up", "seed": 0, "batch_size": 4, "eval_batch_size": 5, "max_length": 40}
    tokenizers = {"tokenizer": tokenizer, "target_tokenizer": tokenizer}
    return ParallelDataModule(source=source, root=str(root), **(arguments | tokenizers | changes))


def dates(n_train=50, **changes):
    source = {"_target_": "attelbo.data.text.Dates", "n_train": n_train, "n_validation": 20, "n_test": 30}
    return module(source, **changes)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Six aligned files, some of them compressed."""
    for split, n in (("train", 9), ("validation", 3), ("test", 2)):
        source = "".join(f"hier steht Satz {i}.\n" for i in range(n))
        (tmp_path / f"{split}.de.gz").write_bytes(gzip.compress(source.encode()))
        (tmp_path / f"{split}.en").write_text("".join(f"this is sentence number {i} .\n" for i in range(n)))
    return tmp_path


def aligned(folder, **changes):
    names = {split: [f"{split}.de.gz", f"{split}.en"] for split in ("train", "validation", "test")}
    source = {"_target_": "attelbo.data.text.AlignedFiles", **names}
    return module(source, folder, WORDS, **changes)


def test_sentences_stand_between_bos_and_eos(files):
    data = aligned(files)
    batch = data.materialize(torch.tensor([4, 7]), "train")
    assert [data.tokenizer.decode(row) for row in batch.x.tolist()] == ["hier steht satz 4 .", "hier steht satz 7 ."]
    assert data.target_tokenizer.decode(batch.y[1].tolist()) == "this is sentence number 7 ."
    assert batch.x[:, 0].tolist() == [BOS, BOS]
    assert batch.y[:, -1].tolist() == [EOS, EOS]
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [9, 3, 2]


def test_one_vocabulary_of_both_sides(files, tmp_path):
    data = aligned(files, target_tokenizer=None)
    spec = data.spec
    assert spec.target is not None
    assert (spec.n_tokens, spec.token_lengths) == (spec.target.n_tokens, spec.target.token_lengths)
    words = {"hier", "steht", "satz", "this", "is", "sentence", "number", ".", *map(str, range(9))}
    assert set(data.tokenizer.tokens) >= words
    batch = data.materialize(torch.tensor([4]), "train")
    assert batch.x[0, -2] == batch.y[0, -2]  # the full stop is one token
    assert data.target_tokenizer.decode(batch.y[0].tolist()) == "this is sentence number 4 ."
    data.save_state(tmp_path)
    again = aligned(files, target_tokenizer=None)
    again.load_state(tmp_path)
    assert again.spec == spec


def test_specification(files):
    spec = aligned(files).spec
    assert (spec.kind, spec.shape, spec.pads, spec.n_tokens) == ("tokens", (40,), True, 4 + 4 + 9)
    assert spec.target is not None
    assert (spec.target.kind, spec.target.shape, spec.target.n_tokens) == ("tokens", (40,), 4 + 5 + 9)


def test_vocabularies_are_of_the_training_sentences(files):
    (files / "test.en").write_text("that is new\nthis is new\n")
    data = aligned(files)
    assert data.target_tokenizer.decode(data.materialize(torch.arange(2), "test").y[0].tolist()) == "<unk> is <unk>"


def test_files_that_are_not_aligned_are_told(files):
    (files / "validation.en").write_text("one\ntwo\n")
    told = rf"^not aligned: {re.escape(str(files))}/validation\.de\.gz has 3 lines, .*/validation\.en has 2$"
    with pytest.raises(DataError, match=told):
        aligned(files).setup()


def test_lines_end_at_line_feeds_alone(files):
    sentences = ["form\ffeed", "line\u2028separator", "next\x85line", "", "trailing\r", *"abcd"]
    (files / "train.en").write_bytes("\n".join(sentences).encode())
    assert aligned(files).n_rows("train") == 9


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, ": no such file; data.source says which, from paths.data_dir or absolutely"),
        (b"", " is empty"),
        (b" \n\n", " is empty"),
        (b"caf\xe9\n", " is not UTF-8: byte 3 is 0xe9"),
    ],
)
def test_files_that_cannot_be_read_are_told(files, content, told):
    path = files / "test.en"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}{told}")):
        aligned(files).setup()


def test_a_damaged_archive_is_told(files):
    (files / "test.de.gz").write_bytes((files / "train.de.gz").read_bytes()[:40])
    with pytest.raises(DataError, match=r"test\.de\.gz cannot be read \(Compressed file ended"):
        aligned(files).setup()


def test_two_files_make_a_split():
    with pytest.raises(ValueError, match=r"^test must name two files, sentences and their translations, got \['c'\]$"):
        AlignedFiles(["a", "b"], ["a", "b"], ["c"])


def test_longer_sentences_are_refused_or_dropped(files):
    lines = (files / "train.en").read_text().splitlines()
    lines[3] = "much " * 30
    (files / "train.en").write_text("\n".join(lines))
    told = (
        r"^data\.max_length must be at least 32, the tokens of train pair 4, BOS and EOS among them, got 20: "
        r"raise it or set data\.drop_longer=true$"
    )
    with pytest.raises(ConfigError, match=told):
        aligned(files, max_length=20).setup()
    kept = aligned(files, max_length=20, drop_longer=True)
    assert kept.n_rows("train") == 8
    assert kept.tokenizer.decode(kept.materialize(torch.tensor([3]), "train").x[0].tolist()) == "hier steht satz 4 ."
    with pytest.raises(ConfigError, match=r"^data\.max_length=7 leaves no pair to train on: raise it$"):
        aligned(files, max_length=7, drop_longer=True).setup()
    (files / "validation.en").write_text("one\ntwo\n" + "very " * 30)
    with pytest.raises(ConfigError, match=r"the tokens of validation pair 3, .*, got 20: raise it$"):
        aligned(files, max_length=20, drop_longer=True).setup()


def test_train_size_keeps_the_first_pairs():
    few, all_ = dates(train_size=10), dates()
    assert few.n_rows("train") == 10
    assert few.checksums()["test"] == all_.checksums()["test"]


def test_a_run_without_its_corpus_knows_its_vocabulary(files, tmp_path):
    data = aligned(files)
    spec = data.spec
    data.save_state(tmp_path)
    elsewhere = aligned("/nowhere")
    elsewhere.load_state(tmp_path)
    assert elsewhere.spec == spec
    assert elsewhere.tokenizer.encode("hier steht Satz 3") == data.tokenizer.encode("hier steht Satz 3")
    with pytest.raises(DataError, match="no such file"):
        elsewhere.setup()


def test_modules_that_share_know_the_vocabulary(files):
    loaded = {}
    first, second = aligned(files), aligned(files, seed=1)
    first.share(loaded)
    first.setup()
    second.share(loaded)
    second.setup()
    assert second._splits is first._splits
    assert second.spec == first.spec
    third = aligned(files, seed=2)
    assert third.spec == first.spec  # asked for before it shares, as when a model is built
    third.share(loaded)
    assert third._splits is first._splits


def test_minibatches_are_bucketed_resumable_and_whole():
    data = dates(n_train=500, batch_size=10, minibatches_per_block=4)
    blocks = list(data.train_dataloader())
    assert sorted(torch.cat([block.index for block in blocks]).tolist()) == list(range(500))
    minibatches = [rows for block in blocks for rows in data.minibatches(block)]
    padding = [int((data.materialize(rows, "train").x == PAD).sum()) for rows in minibatches]
    assert sum(padding) < 0.1 * 500 * 20
    torch.manual_seed(1)
    assert torch.equal(
        blocks[3].index, list(dates(500, batch_size=10, minibatches_per_block=4).train_dataloader())[3][0]
    )


def test_minibatches_of_any_length_are_the_shuffle_itself():
    data = dates(n_train=500, batch_size=10, bucketed=False)
    order = torch.cat([block.index for block in data.train_dataloader()])
    assert torch.equal(order, training_order(500, 0, 0))
    bucketed = torch.cat([block.index for block in dates(n_train=500, batch_size=10).train_dataloader()])
    assert not torch.equal(order, bucketed)
    assert torch.equal(order.sort().values, bucketed.sort().values)


def test_evaluation_is_in_order():
    data = dates()
    rows = torch.cat([block.index for block in data.test_dataloader()])
    assert rows.tolist() == list(range(30))


# -- dates ---------------------------------------------------------------------------------------------


def parse(written: str) -> str:
    """Read a date as a person would: the solver that the task is checked by."""
    names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    if re.fullmatch(r"\d{8}", written):
        return datetime.date(int(written[:4]), int(written[4:6]), int(written[6:])).isoformat()
    numbers = [int(number) for number in re.findall(r"\d+", written)]
    if len(numbers) == 3:
        year, month, day = numbers if numbers[0] > 31 else numbers[::-1]
    else:
        day, year = numbers
        found = [names.index(word[:3]) for word in re.findall(r"[a-z]+", written.lower()) if word[:3] in names]
        (month,) = {place + 1 for place in found}
    return datetime.date(year, month, day).isoformat()


def test_dates_have_one_answer_and_it_is_right():
    corpus = Dates(5000).load(Path())
    for pairs in corpus:
        assert [parse(written) for written in pairs.source] == pairs.target


def test_no_day_is_in_two_splits():
    corpus = Dates(N_DAYS - 2000).load(Path())
    days = [set(pairs.target) for pairs in corpus]
    assert [len(of_split) for of_split in days] == [N_DAYS - 2000, 1000, 1000]
    assert len(set.union(*days)) == N_DAYS


def test_every_format_is_distinct_and_used():
    day = datetime.date(2021, 9, 3)
    written = [form(day, "September", "Friday") for form in FORMATS]
    assert len(set(written)) == len(FORMATS) == 13
    assert written[:2] == ["3 September 2021", "September 3, 2021"]
    shapes = {re.sub(r"[a-zA-Z]+", "x", re.sub(r"\d", "0", text)) for text in Dates(2000).load(Path()).train.source}
    assert len(shapes) >= 13


@pytest.mark.parametrize(
    ("day", "ordinal"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"),
                         (21, "21st"), (22, "22nd"), (23, "23rd"), (31, "31st")],
)  # fmt: skip
def test_ordinals(day, ordinal):
    assert FORMATS[6](datetime.date(2021, 5, day), "May", "") == f"the {ordinal} of May 2021"


def test_dates_are_the_same_in_every_run():
    seed_everything(3, verbose=False)
    assert Dates(10).load(Path()).train.source[:3] == Dates(10).load(Path()).train.source[:3]
    assert Dates(10).load(Path()).test == Dates(500).load(Path()).test
    assert torch.initial_seed() == 3


@pytest.mark.parametrize(
    ("sizes", "told"), [((0, 1, 1), "n_train must be"), ((N_DAYS, 1, 1), "at most 73,049, the days")]
)
def test_days_run_out(sizes, told):
    with pytest.raises(ValueError, match=told):
        Dates(*sizes)


# -- Multi30k ------------------------------------------------------------------------------------------


def multi30k(root, **changes):
    words = {**WORDS, "min_freq": 2}
    return module({"_target_": "attelbo.data.text.Multi30k"}, root, words, max_length=100, **changes)


def test_multi30k_is_the_published_one(data_folder):
    if Multi30k().missing(data_folder):
        pytest.skip(f"no multi30k/task1 in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    data = multi30k(data_folder)
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [29_000, 1_014, 1_000]
    assert data.spec.target is not None
    assert (data.spec.n_tokens, data.spec.target.n_tokens) == (7_882, 5_898)
    batch = data.materialize(torch.tensor([0]), "test")
    assert data.target_tokenizer.decode(batch.y[0].tolist()) == "a man in an orange hat starring at something ."


def test_multi30k_that_is_missing_or_damaged(tmp_path, no_network):
    with pytest.raises(
        DataError, match=r"^Multi30k: missing in .*task1/train\.de\.gz \(MD5 81ff90b9.*data=dates needs"
    ):
        multi30k(tmp_path).prepare_data()
    with pytest.raises(DataError, match="nothing was downloaded"):
        multi30k(tmp_path).setup()
    for file in Multi30k().missing(tmp_path):
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"one\n"))
    with pytest.raises(DataError, match=r"train\.de\.gz is damaged: its MD5 sum is .*, published is 81ff90b9"):
        multi30k(tmp_path).setup()


def test_a_language_is_not_translated_to_itself():
    with pytest.raises(ValueError, match=r"^source and target must be two languages, got en twice$"):
        Multi30k("en", "en")
