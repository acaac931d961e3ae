"""Runs on text: the run directory is enough to use the model; what is wrong with a text shows before anything runs."""

import json
import re

import pytest
import torch

from attelbo.cli import main
from attelbo.data import LanguageDataModule
from attelbo.errors import DataError
from attelbo.experiments import run
from attelbo.models import load_run

TEXT = "the quick brown fox jumps over the lazy dog\nand the dog sleeps on\n" * 12
SMALL = (
    *("~experiment", "model=gpt", "model.dim=8", "model.attention.heads=2", "model.network.layers=1", "data=text"),
    *("data.context=12", "data.tokenizer.size=290", "data.train_size=60", "data.batch_size=10"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=1", "callbacks=checkpoint"),
)


@pytest.fixture
def words(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT)
    return [*SMALL, f"data.source.path={tmp_path}/input.txt", f"paths.output_dir={tmp_path}/outputs"]


def test_a_run_can_be_used_without_its_text(runs, words, tmp_path):
    run_dir = run.train(runs.compose(words), [], {}, None).run_dir
    tokens = load_run(run_dir)[1].spec.n_tokens
    (tmp_path / "input.txt").unlink()
    model, data = load_run(run_dir)
    assert isinstance(data, LanguageDataModule)
    assert data.spec.n_tokens == tokens == 290
    prompt = data.tokenizer.encode("the quick fox")
    assert data.tokenizer.decode(prompt) == "the quick fox"
    assert model(torch.tensor([prompt])).shape == (1, len(prompt), 290)
    with pytest.raises(DataError, match=r"input\.txt: no such file"):
        data.setup()
    told = json.loads((run_dir / "provenance.json").read_text())["data"]["checksums"]
    assert set(told) == {"train", "validation", "test"}


def test_a_run_without_its_vocabulary_says_so(runs, words):
    run_dir = run.train(runs.compose(words), [], {}, None).run_dir
    (run_dir / "vocabulary.json").unlink()
    with pytest.raises(DataError, match=r"vocabulary\.json does not hold the vocabulary of this run"):
        load_run(run_dir)


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        ("", (), r"^error: .*input\.txt is empty$"),
        (None, (), r"^error: .*input\.txt: no such file"),
        (TEXT, ("data.context=5000",), r"^error: data\.context=5,000 needs 5,001 tokens, the train text of text has"),
        (TEXT, ("data.windows_per_epoch=0",), r"^error: data\.windows_per_epoch must be at least 1, got 0$"),
        (TEXT, ("data.tokenizer.size=9",), r"^error: data\.tokenizer\.size must be at least 260"),
    ],
    ids=["empty", "missing", "short", "windows", "size"],
)
def test_what_is_wrong_with_a_text_is_one_line_before_anything_runs(words, tmp_path, capsys, content, more, told):
    path = tmp_path / "input.txt"
    path.unlink() if content is None else path.write_text(content)
    given = {word.partition("=")[0]: word for word in (*words, *more)}.values()
    assert main(["train", *given]) == 2
    printed = capsys.readouterr().err.strip()
    assert re.search(told, printed)
    assert "\n" not in printed
    assert not (tmp_path / "outputs").exists()
