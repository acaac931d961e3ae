"""``attelbo translate``: what is printed and drawn is what the model says."""

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.cli import main
from attelbo.data.batch import BOS, EOS
from attelbo.experiments import run, translating
from attelbo.models import SequenceToSequence, load_run

ATTENTION = "attelbo.attention"
MODEL = {
    "_target_": "attelbo.models.build_transformer_translator",
    "network": {"_target_": "attelbo.networks.Transformer", "layers": 1, "hidden": 16},
    "attention": {"_target_": f"{ATTENTION}.MultiHeadAttention", "heads": 2},
    "score": {"_target_": f"{ATTENTION}.ScaledDot"},
    "normalizer": {"_target_": f"{ATTENTION}.Softmax"},
    "position": {"_target_": f"{ATTENTION}.Learned"},
    "dim": 8,
}
CHARACTERS = {"_target_": "attelbo.data.text.Characters"}
DATA = {
    "_target_": "attelbo.data.ParallelDataModule",
    "name": "dates",
    "source": {"_target_": "attelbo.data.text.Dates", "n_train": 200, "n_validation": 20, "n_test": 20},
    "tokenizer": CHARACTERS,
    "target_tokenizer": CHARACTERS,
    "root": "",
    "seed": 0,
    "batch_size": 20,
    "eval_batch_size": 20,
    "max_length": 40,
}
SENTENCES = ["3 May 2021", "17 Dec 1999", "1"]


@pytest.fixture(scope="module")
def done(shared_runs):
    config = shared_runs.configure("callbacks=checkpoint", "trainer.max_epochs=1", "optimizer.lr=0.01")
    config |= {"data": DATA, "model": MODEL}
    config["callbacks"]["translations"] = {"_target_": "attelbo.training.callbacks.Translations", "n": 3}
    return run.train(config, [], {}, None).run_dir


@pytest.fixture(scope="module")
def expected(done):
    """Of each sentence, by itself: source tokens, tokens found, text."""
    model, data = load_run(done)
    assert isinstance(model, SequenceToSequence)
    rows = []
    for sentence in SENTENCES:
        source = [BOS, *data.tokenizer.encode(sentence), EOS]
        (found,) = model.translate(torch.tensor([source]))
        rows.append((source, found, data.target_tokenizer.decode(found)))
    return rows


def translated(capsys, *words):
    assert main(["translate", *words, "accelerator=cpu"]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_sentence(done, expected, capsys):
    assert translated(capsys, f"run={done}", f"text={SENTENCES[0]}") == [expected[0][2]]


def test_lines_of_the_standard_input_stay_in_their_places(done, expected, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([SENTENCES[0], "", *SENTENCES[1:]]) + "\n"))
    lines = translated(capsys, f"run={done}")
    assert lines == [expected[0][2], "", expected[1][2], expected[2][2]]


def test_many_sentences_are_translated_in_pieces(done, expected, capsys, monkeypatch):
    monkeypatch.setattr(translating, "CHUNK", 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(SENTENCES)))
    assert translated(capsys, f"run={done}") == [text for _, _, text in expected]


def test_the_search_is_the_one_asked_for(done, capsys):
    model, data = load_run(done)
    source = torch.tensor([[BOS, *data.tokenizer.encode(SENTENCES[0]), EOS]])
    (found,) = model.translate(source, beam=4, length_penalty=1.0, max_length=5)
    words = (f"run={done}", f"text={SENTENCES[0]}", "beam=4", "length_penalty=1.0", "max_length=5")
    assert translated(capsys, *words) == [data.target_tokenizer.decode(found)]


def test_the_map_is_the_alignment_of_what_was_found(done, expected, tmp_path, capsys, monkeypatch):
    shown = []
    draw = translating.alignment_map

    def keep(weights, source, target, title, panels):
        shown.append((weights, source, target, title))
        return draw(weights, source, target, title, panels)

    monkeypatch.setattr(translating, "alignment_map", keep)
    translated(capsys, f"run={done}", f"text={SENTENCES[0]}", f"map={tmp_path / 'one.png'}")
    ((weights, source, target, title),) = shown
    tokens, found, _ = expected[0]
    model, data = load_run(done)
    by_hand = model.alignment(torch.tensor([tokens]), torch.tensor([[BOS, *found]]))[0]
    torch.testing.assert_close(weights, by_hand)
    assert weights.shape == (len(target), len(source))
    torch.testing.assert_close(weights.sum(1), torch.ones(len(target)))
    assert source == ["<bos>", *SENTENCES[0], "<eos>"]
    assert target == [*(data.target_tokenizer.tokens[token] for token in found), "<eos>"]
    assert title == SENTENCES[0]
    assert np.asarray(Image.open(tmp_path / "one.png")).shape[2] == 3

    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(SENTENCES)))
    lines = translated(capsys, f"run={done}", f"map={tmp_path / 'many.png'}")
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "many-1.png", "many-2.png", "many-3.png"}
    assert sum(line.startswith("map: ") for line in lines) == 3


def test_the_map_of_heads_has_a_panel_for_each(done, expected, tmp_path, capsys, monkeypatch):
    shown = []
    draw = translating.alignment_map
    monkeypatch.setattr(translating, "alignment_map", lambda *given: shown.append(given) or draw(*given))
    words = (f"run={done}", f"text={SENTENCES[0]}", f"map={tmp_path / 'heads.png'}")
    translated(capsys, *words)
    one = np.asarray(Image.open(tmp_path / "heads.png")).shape
    translated(capsys, *words, "heads=true")
    (mean, *_), (each, *_, panels) = shown
    assert panels == ["head 1", "head 2"]
    torch.testing.assert_close(each.mean(0), mean)
    torch.testing.assert_close(each.sum(-1), torch.ones(2, mean.shape[0]))
    assert not torch.allclose(each[0], each[1])
    assert np.asarray(Image.open(tmp_path / "heads.png")).shape[1] > one[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["text=1", "heads=true"], "heads=true: there is no map that could show them: map=a.png draws one"),
        (["text="], "text='': there is nothing in it to translate"),
        (["map=a.png"], "map=a.png: there is no text whose translation could be looked at"),
        (["text=3 май"], "characters that are not among the .* of the vocabulary: .*U\\+0430"),
        (["text=" + "1" * 50], "'1+' has 52 tokens, BOS and EOS among them; the model was built for 40"),
        (["text=1", "beam=0"], "beam must be at least 1, got 0"),
        (["text=1", "max_length=99"], "max_length must be at most 39, got 99"),
    ],
)
def test_what_cannot_be_translated_is_told_in_one_line(done, capsys, monkeypatch, words, why):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert main(["translate", f"run={done}", "accelerator=cpu", *words]) == 2
    captured = capsys.readouterr()
    assert re.match(f"error: {why}", captured.err), captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_model_of_another_kind_does_not_translate(runs, capsys):
    run_dir = runs.train("trainer.max_epochs=1").run_dir
    assert main(["translate", f"run={run_dir}", "text=1", "accelerator=cpu"]) == 2
    assert "is the run of a VariationalAutoencoder on digits: it does not translate" in capsys.readouterr().err


def test_the_end_of_a_run_shows_translations_and_an_alignment(done):
    model, data = load_run(done)
    text = (done / "media" / "translations.txt").read_text()
    data.setup()
    first = data.materialize(torch.tensor([0]), "validation")
    assert first.y is not None
    (found,) = model.translate(first.x)
    assert text.startswith(
        f"     source  {data.tokenizer.decode(first.x[0].tolist())}\n"
        f"     target  {data.target_tokenizer.decode(first.y[0].tolist())}\n"
        f"translation  {data.target_tokenizer.decode(found)}\n\n"
    )
    assert text.count("source") == 3
    page = (done / "report.html").read_text()
    assert "source, target and translation" in page
    assert "nats per token" in page


def test_without_attention_there_is_no_map(done, tmp_path, capsys, monkeypatch):
    model, _ = load_run(done)
    monkeypatch.setattr(type(model.network), "aligns", False)
    assert main(["translate", f"run={done}", "accelerator=cpu", "text=1", f"map={tmp_path / 'new' / 'no.png'}"]) == 2
    captured = capsys.readouterr()
    assert "a model without attention to the source has no alignment" in captured.err
    assert captured.out == ""
    assert not list(tmp_path.iterdir())
