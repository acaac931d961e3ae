"""``attelbo sample`` of language models, and what their runs show: what is written is what the model draws."""

import re

import pytest
import torch

from attelbo.cli import main
from attelbo.data.batch import BOS, PAD
from attelbo.errors import DataError
from attelbo.experiments import run
from attelbo.models import LanguageModel, load_run
from attelbo.seeding import derive_seed
from attelbo.training.callbacks import Answers, TextSamples
from attelbo.training.callbacks import texts as texts_module
from attelbo.training.callbacks.texts import RULE

TEXT = "the quick brown fox jumps over the lazy dog\nand the dog sleeps on\n" * 12
SMALL = ("~experiment", "model=gpt", "model.dim=8", "model.attention.heads=2", "model.network.layers=1")
SMALL_RUN = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks=default", "optimizer.lr=0.01")


def trained(runs, *words):
    config = runs.compose([*SMALL, *SMALL_RUN, f"paths.output_dir={runs.folder}", *words])
    config["callbacks"]["texts"] |= {"n": 2, "length": 30}
    return run.train(config, [], {}, None).run_dir


@pytest.fixture(scope="module")
def corpus(shared_runs):
    folder = shared_runs.folder / "texts"
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text(TEXT)
    return ("data=text", "data/tokenizer=characters", f"data.source.path={folder / 'input.txt'}", "data.context=12")


@pytest.fixture(scope="module")
def done(shared_runs, corpus):
    return trained(shared_runs, *corpus)


def drawn(run_dir, prompt, length, n=1, seed=0, **options):
    """The texts by the model's own hand."""
    model, data = load_run(run_dir)
    assert isinstance(model, LanguageModel)
    torch.default_generator.manual_seed(derive_seed(seed, "sample"))
    tokens = model.generate(torch.tensor([prompt(data.tokenizer)] * n), length, **options)
    return [data.tokenizer.decode(row) for row in tokens.tolist()]


def test_a_prompt_is_gone_on_with(done, capsys):
    words = ["prompt=the qu", "n=3", "length=7", "seed=5", "temperature=0.7", "top_k=4", "top_p=0.9", "min_p=0.1"]
    words.append("typical_p=0.8")
    assert main(["sample", f"run={done}", "accelerator=cpu", *words]) == 0
    given = {"temperature": 0.7, "top_k": 4, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.8}
    expected = drawn(done, lambda tokenizer: tokenizer.encode("the qu"), 7, 3, 5, **given)
    text = f"\n{RULE}\n".join(expected) + "\n"
    assert len(set(expected)) > 1
    assert all(len(one) == 13 and one.startswith("the qu") for one in expected)
    assert capsys.readouterr().out.startswith(text)
    named = "temperature0.7-top_k4-top_p0.9-min_p0.1-typical_p0.8"
    (file,) = (done / "media").glob(f"samples-n3-seed5-prompt*-length7-{named}.txt")
    assert file.read_text() == text
    words[0] = "prompt=the th"
    assert main(["sample", f"run={done}", "accelerator=cpu", *words]) == 0
    assert len(list((done / "media").glob("samples-n3-seed5-prompt*"))) == 2
    assert file.read_text() == text  # another prompt, another file


def test_by_default_it_begins_with_a_line_break_and_ends_where_the_model_must_forget(done, tmp_path, capsys):
    path = tmp_path / "mine.txt"
    assert main(["sample", f"run={done}", f"output={path}", "accelerator=cpu"]) == 0
    text = path.read_text()
    assert text == drawn(done, lambda tokenizer: tokenizer.encode("\n"), 12)[0] + "\n"
    assert text[0] == "\n"
    assert len(text) == 1 + 12 + 1
    capsys.readouterr()


def test_longer_texts_are_for_those_who_let_it_forget(done, capsys):
    assert main(["sample", f"run={done}", "prompt=dog", "length=20", "accelerator=cpu"]) == 2
    assert "truncate=true drops the first of them" in capsys.readouterr().err
    assert main(["sample", f"run={done}", "prompt=dog", "length=20", "truncate=true", "accelerator=cpu"]) == 0
    assert len(capsys.readouterr().out.partition("1 samples")[0]) == 24
    assert main(["sample", f"run={done}", "truncate=true", "accelerator=cpu"]) == 0
    assert len(capsys.readouterr().out.partition("1 samples")[0]) == 502


def test_at_temperature_zero_the_seed_decides_nothing(done, capsys):
    texts = []
    for seed in (1, 2):
        assert main(["sample", f"run={done}", "temperature=0", f"seed={seed}", "accelerator=cpu"]) == 0
        texts.append(capsys.readouterr().out.partition("1 samples")[0])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("prompt=ÄÖ", "prompt: characters that are not among the .* of the vocabulary"),
        ("prompt=''", "prompt: there is no token in ''"),
        ("length=0", "length must be at least 1, got 0"),
        ("temperature=-1", "temperature"),
        ("top_p=2.0", "top_p"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_line(done, capsys, word, why):
    assert main(["sample", f"run={done}", "accelerator=cpu", word]) == 2
    captured = capsys.readouterr()
    assert re.match(f"error: {why}", captured.err), captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "word",
    ["prompt=x", "length=5", "temperature=1.0", "top_k=3", "top_p=0.5", "min_p=0.1", "typical_p=0.9", "truncate=true"],
)
def test_a_model_of_images_writes_no_text(vae, capsys, word):
    assert main(["sample", f"run={vae}", "accelerator=cpu", word]) == 2
    name = word.partition("=")[0]
    assert re.match(f"error: {name}=.* is the run of a Vari.* on digits: it writes no text\n$", capsys.readouterr().err)


@pytest.fixture(scope="module")
def vae(shared_runs):
    return shared_runs.train("trainer.max_epochs=1").run_dir


# -- at the end of a run -------------------------------------------------------------------------------


def test_the_run_shows_texts_that_go_on_with_rows(done):
    model, data = load_run(done)
    data.setup()
    texts = (done / "media" / "samples.txt").read_text()[:-1].split(f"\n{RULE}\n")
    rows = data.materialize(torch.arange(2) * data.n_rows("validation") // 2, "validation").x
    assert [text[:12] for text in texts] == [data.tokenizer.decode(row) for row in rows.tolist()]
    assert {len(text) for text in texts} == {42}
    assert isinstance(model, LanguageModel)
    page = (done / "report.html").read_text()
    assert ">Samples<" in page
    assert "nats per" in page


def test_padded_documents_begin_with_what_all_of_them_have(runs, corpus, monkeypatch):
    padded = ("data.context=48", "data.documents=padded", "data.windows=consecutive", "data.source.separator='\n'")
    run_dir = trained(runs, *corpus[:-1], *padded)
    model, data = load_run(run_dir)
    data.setup()
    rows = data.materialize(torch.arange(2) * data.n_rows("validation") // 2, "validation").x
    first = int((rows != PAD).sum(1).min())
    assert first < rows.shape[1]  # there is padding
    monkeypatch.setattr(texts_module, "N_FIRST", 48)
    texts = TextSamples(n=2, length=5).draw(model, data)["samples"][:-1].split(f"\n{RULE}\n")
    for text, row in zip(texts, rows[:, :first].tolist(), strict=True):
        assert text.startswith(data.tokenizer.decode(row))
        assert len(text) <= first - 1 + 5  # BOS is not written
    # A text of its own begins as documents do.
    expected = drawn(run_dir, lambda tokenizer: [BOS, *tokenizer.encode("the")], 5)[0]
    assert main(["sample", f"run={run_dir}", "prompt=the", "length=5", "accelerator=cpu"]) == 0
    (file,) = (run_dir / "media").glob("samples-n1-seed0-prompt*-length5.txt")
    assert file.read_text() == f"{expected}\n"
    assert expected.startswith("the")


def test_a_prompt_that_cannot_be_read_is_told_before_the_training(runs, corpus):
    words = [*SMALL, *SMALL_RUN, f"paths.output_dir={runs.folder}", *corpus]
    config = runs.compose([*words, "callbacks.texts.prompt='Ä'"])
    with pytest.raises(DataError, match="characters that are not among"):
        run.train(config, [], {}, None)


def test_answers_stand_beside_the_right_ones(runs):
    run_dir = trained(runs, "data=sort", "data.train_size=64", "data.validation_size=20", "data.test_size=20")
    assert not (run_dir / "media" / "samples.txt").exists()
    model, data = load_run(run_dir)
    data.setup()
    assert isinstance(model, LanguageModel)
    batch = data.materialize(torch.arange(10) * 20 // 10, "validation")
    assert batch.y is not None
    said = model(batch.x).argmax(-1)
    blocks = (run_dir / "media" / "answers.txt").read_text().split("\n\n")
    assert len(blocks) == 10
    n_right = 0
    for block, x, y, answer in zip(blocks, batch.x, batch.y, said, strict=True):
        row, right, own = (line.split() for line in block.splitlines())
        asked = y >= 0
        assert row[1:] == [str(token) for token in x.tolist()]
        assert right[1:] == [str(token) for token in y[asked].tolist()]
        assert own[1:] == [str(token) for token in answer[asked].tolist()]
        assert (own[0] == "right") == (right[1:] == own[1:])
        n_right += own[0] == "right"
    assert n_right < 10
    assert "Answers" in (run_dir / "report.html").read_text()


def test_tokens_without_letters_are_no_text(runs, capsys):
    run_dir = trained(runs, "data=sort", "data.train_size=64", "data.validation_size=20", "data.test_size=20")
    assert main(["sample", f"run={run_dir}", "accelerator=cpu"]) == 2
    assert "sort has tokens without letters" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"n": 0}, {"length": 0}, {"temperature": -0.1}, {"temperature": float("inf")}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be"):
        TextSamples(**options)
    if "n" in options:
        with pytest.raises(ValueError, match="n must be at least 1"):
            Answers(**options)
