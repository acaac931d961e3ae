"""``attelbo predict``: what is printed and written is what the model says, and agrees with the numbers of its run."""

import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.cli import main
from attelbo.data.batch import BOS, EOS
from attelbo.experiments import run
from attelbo.models import Classifier, LanguageModel, load_run

TEXT = "the quick brown fox jumps over the lazy dog\nand the dog sleeps on\n" * 12
TINY = ("trainer.max_epochs=1", "optimizer.lr=0.01", "data.minibatches_per_block=4")
PARTS = ("model.dim=8", "model.attention.heads=2", "model.network.layers=1", "model.network.hidden=16")
IMAGES = ("model=vit", "model.patch=4", *PARTS, "data.binarize=none", *TINY)
TEXTS = ("data=unicode_names", "model=text_classifier", *PARTS, "data.train_size=400", "data.batch_size=50", *TINY)
SOME_LABELS = ("model=m2", "data.n_labels=50", *TINY)
LANGUAGE = ("data=text", "data.context=12", "model=gpt", *PARTS[:-1], "data.batch_size=8", *TINY)
PADDED = ("data.documents=padded", "data.windows=consecutive")
WITHOUT = ("data.train_size=100", "data.batch_size=10", "data.validation_size=40", "evaluation.n_images=5")


@pytest.fixture(scope="module")
def trained(shared_runs, tmp_path_factory):
    """The run directory of these words, trained once."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "input.txt").write_text(TEXT)
    source = ("data/tokenizer=characters", f"data.source.path={folder / 'input.txt'}")
    done = {}

    def train(*words):
        if words not in done:
            given = (*words[:1], *source, *words[1:]) if words[0] == "data=text" else words
            without = () if words[0].startswith("model=") else WITHOUT
            config = shared_runs.configure(*given, without=without)
            done[words] = run.train(config, list(given), {}, None).run_dir
        return done[words]

    return train


def predict(capsys, run_dir, *words):
    capsys.readouterr()  # what the training said
    assert main(["predict", f"run={run_dir}", "accelerator=cpu", *words]) == 0
    return capsys.readouterr().out


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def metrics(run_dir):
    return json.loads((run_dir / "result.json").read_text())["metrics"]


@pytest.mark.parametrize("words", [IMAGES, TEXTS, SOME_LABELS], ids=["images", "texts", "few labels"])
def test_the_accuracy_of_a_split_is_that_of_the_run(words, trained, capsys):
    run_dir = trained(*words)
    out = predict(capsys, run_dir, "split=test")
    rows = table(run_dir / "media" / "predictions-test.csv")
    assert out.startswith(f"{len(rows):,} test rows: ")
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert 0 < right < 1
    assert right == pytest.approx(metrics(run_dir)["test/accuracy"], abs=1e-7)
    assert [int(row["row"]) for row in rows] == list(range(len(rows)))
    for row in rows:
        probabilities = {name[2:-1]: float(value) for name, value in row.items() if name.startswith("p(")}
        assert max(probabilities, key=probabilities.__getitem__) == row["prediction"]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_the_cross_entropy_of_a_split_is_that_of_the_run(trained, capsys):
    run_dir = trained(*IMAGES)
    predict(capsys, run_dir, "split=test")
    rows = table(run_dir / "media" / "predictions-test.csv")
    nats = [-math.log(float(row[f"p({row['label']})"])) for row in rows]
    assert sum(nats) / len(nats) == pytest.approx(metrics(run_dir)["test/loss"], rel=1e-5)


def test_pictures_in_a_folder_are_the_images_they_were_made_of(trained, tmp_path, capsys):
    run_dir = trained(*IMAGES)
    predict(capsys, run_dir, "split=test", f"output={tmp_path / 'split.csv'}")
    _, data = load_run(run_dir)
    x = (data.materialize(torch.arange(data.n_rows("test")), "test").x * 255).round().byte()
    for row, image in enumerate(x[:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / f"{row:04}.png")
    out = predict(capsys, run_dir, f"path={tmp_path}", f"output={tmp_path / 'own.csv'}")
    split, own = table(tmp_path / "split.csv"), table(tmp_path / "own.csv")
    assert len(own) == len(split) == len(x)
    for asked, row in zip(split, own, strict=True):
        assert Path(row["picture"]) == tmp_path / f"{int(asked['row']):04}.png"
        assert row["prediction"] == asked["prediction"]
        assert all(float(row[name]) == pytest.approx(float(asked[name]), abs=1e-6) for name in row if "p(" in name)
    best, _, _, name = out.splitlines()[0].split("  ")
    assert best == f"{own[0]['prediction']} {max(float(own[0][n]) for n in own[0] if 'p(' in n):.4f}"
    assert name == str(tmp_path / "0000.png")


def test_a_picture_of_another_shape_is_cut_to_that_of_the_data(trained, tmp_path, capsys):
    """The middle of it, in grey levels: stripes beside the square do not count."""
    square = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(square).save(tmp_path / "square.png")
    wide = np.pad(square, ((0, 0), (4, 4)))
    Image.fromarray(wide).convert("RGB").save(tmp_path / "wide.png")
    out = predict(capsys, trained(*IMAGES), f"path={tmp_path}").splitlines()
    assert len({line.removesuffix(name) for line, name in zip(out, ("square.png", "wide.png"), strict=True)}) == 1


def test_texts_are_the_lines_of_a_pipe_or_a_file(trained, tmp_path, capsys, monkeypatch):
    run_dir, lines = trained(*TEXTS), ["latin small letter o", "", "digit four"]
    model, data = load_run(run_dir)
    assert isinstance(model, Classifier)
    expected = []
    for line in lines:
        (found,) = model.classify(torch.tensor([[BOS, *data.tokenizer.encode(line), EOS]]))
        likely = found.topk(3)
        pairs = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
        expected.append("  ".join(f"{data.class_names[c]} {p:.4f}" for c, p in pairs) + f"  {line}")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    assert predict(capsys, run_dir).splitlines() == expected
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    assert predict(capsys, run_dir, f"path={tmp_path / 'lines.txt'}").splitlines() == expected
    assert predict(capsys, run_dir, f"text={lines[2]}").splitlines() == expected[2:]


def test_a_text_that_rows_are_cut_to_is_cut_too(trained, capsys):
    cut = trained(*TEXTS, "data.max_length=8", "data.cut_longer=true")
    assert predict(capsys, cut, "text=a b c d e f g h").startswith(predict(capsys, cut, "text=a b c d e f")[:15])


def test_the_nats_of_a_split_are_those_of_the_run(trained, capsys):
    for more in ((), PADDED, ("data.documents=packed",)):
        run_dir = trained(*LANGUAGE, *more)
        predict(capsys, run_dir, "split=test")
        rows = table(run_dir / "media" / "predictions-test.csv")
        tokens, nats = (sum(float(row[name]) for row in rows) for name in ("tokens", "nats"))
        assert nats / tokens == pytest.approx(metrics(run_dir)["test/loss"], rel=1e-5)
        if not more:  # each token is a character
            assert float(rows[0]["bits_per_character"]) == pytest.approx(
                float(rows[0]["nats"]) / float(rows[0]["tokens"]) / math.log(2), rel=1e-5
            )


def test_each_token_of_a_text_costs_what_the_model_says(trained, tmp_path, capsys):
    run_dir, text = trained(*LANGUAGE), "the lazy fox and the brown dog"  # 30 characters, windows of 12
    model, data = load_run(run_dir)
    assert isinstance(model, LanguageModel)
    out = predict(capsys, run_dir, f"text={text}", f"output={tmp_path / 'nats.csv'}").splitlines()
    tokens = data.tokenizer.encode("\n" + text)
    by_hand = []
    with torch.no_grad():
        for first in range(0, len(text), 12):
            seen = torch.tensor([tokens[first : first + 12]])
            scores = model(seen).log_softmax(-1)[0]
            by_hand += [-float(scores[place, token]) for place, token in enumerate(tokens[first + 1 : first + 13])]
    rows = table(tmp_path / "nats.csv")
    assert "".join(row["token"] for row in rows) == text
    assert [float(row["nats"]) for row in rows] == pytest.approx(by_hand, rel=1e-4)
    assert [float(line.split()[0]) for line in out[:30]] == pytest.approx(by_hand, abs=6e-4)
    total, n, mean, bits, *_ = out[32].split()
    assert int(n) == 30
    assert float(total) == pytest.approx(sum(by_hand), abs=1e-3)
    assert float(mean) == pytest.approx(sum(by_hand) / 30, abs=1e-4)
    assert float(bits) == pytest.approx(sum(by_hand) / 30 / math.log(2), abs=1e-4)


@pytest.mark.parametrize("more", [(), PADDED], ids=["stream", "padded"])
def test_several_texts_cost_what_each_costs_alone(more, trained, capsys, monkeypatch):
    run_dir, lines = trained(*LANGUAGE, *more), ["the dog", "", "a fox jumps over the dog and the fox"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    together = predict(capsys, run_dir).splitlines()
    alone = [predict(capsys, run_dir, f"text={line}").splitlines()[-1] for line in lines]
    assert together[1:] == alone
    assert int(alone[0].split()[1]) == len(lines[0]) + bool(more)  # and the end, where there is one


@pytest.mark.parametrize(
    ("words", "asked", "why"),
    [
        (IMAGES, (), "is the run of a Classifier on digits: path=... names a picture or a folder of them, split=test"),
        (IMAGES, ("text=a",), "is the run of a Classifier on digits: path=... names a picture"),
        (IMAGES, ("path=nowhere",), "path=nowhere: no such file or folder"),
        (
            IMAGES,
            (f"path={__file__}",),
            "no picture; path=... names a picture or a folder of them, split=test the test rows of digits",
        ),
        (IMAGES, ("split=test", "path=x"), "split=test: one of text, path and split; there is path=x already"),
        (IMAGES, ("split=test", "output=a.png"), "output=a.png: the file is CSV: its name must end in .csv"),
        (TEXTS, ("path=nowhere.txt",), "path=nowhere.txt: no such file of texts, one a line"),
        (TEXTS, ("text=" + "a " * 23,), "has 25 tokens, BOS and EOS among them; the model was built for 24"),
        (LANGUAGE, ("text=dög",), "error: text: characters that are not among the 28 of the vocabulary: 'ö'"),
        (
            (),
            ("split=test",),
            "is the run of a VariationalAutoencoder on digits: it predicts neither classes nor tokens",
        ),
    ],
)
def test_what_cannot_be_predicted_is_told_in_one_line(words, asked, why, trained, capsys):
    run_dir = trained(*(words or ("model=vae", "trainer.max_epochs=1")))
    before = set(run_dir.rglob("*"))
    capsys.readouterr()
    assert main(["predict", f"run={run_dir}", "accelerator=cpu", *asked]) == 2
    captured = capsys.readouterr()
    assert why in captured.err, captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert set(run_dir.rglob("*")) == before


def test_a_line_without_a_token_costs_nothing(trained, capsys, monkeypatch):
    """Among words is no line break to come before a text, so that a blank line has no token at all."""
    run_dir = trained(*LANGUAGE, "data/tokenizer=words")
    monkeypatch.setattr(sys, "stdin", io.StringIO("the lazy dog\n\nthe\u2028dog\n"))
    _, *lines = predict(capsys, run_dir).splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["2", "0"]
    assert lines[1].split() == ["0.000", "0", "nan"]
    assert lines[2].split()[1] == "1"  # one line, whatever else Unicode takes for an end


def test_a_line_that_cannot_be_read_is_named(trained, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the dog\ndög\n"))
    run_dir = trained(*LANGUAGE)
    capsys.readouterr()
    assert main(["predict", f"run={run_dir}", "accelerator=cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: line 2: characters that are not among")
    assert captured.out == ""


def test_of_a_csv_the_column_of_texts_is_read(tmp_path, capsys):
    lines = "".join(f'"fox, {i}",{"red" if i % 2 else "grey"}\n' for i in range(60))
    (tmp_path / "a.csv").write_text(f"text,label\n{lines}")
    words = ["data=text_csv", f"data.source.train={tmp_path}/a.csv", *TEXTS[1:6], *TINY, "data.batch_size=10"]
    assert main(["train", *words, "callbacks=checkpoint", "logger=none", f"paths.output_dir={tmp_path}/out"]) == 0
    (tmp_path / "b.csv").write_text('about,text\nanimals,"fox, 3"\nanimals,"fox, 4"\n')
    (tmp_path / "b.txt").write_text("fox, 3\nfox, 4\n")
    of_csv, of_lines = (predict(capsys, tmp_path / "out", f"path={tmp_path}/b.{end}") for end in ("csv", "txt"))
    assert of_csv == of_lines
    assert main(["predict", f"run={tmp_path}/out", f"path={tmp_path}/b.csv", "text=x"]) == 2
    (tmp_path / "b.csv").write_text("about\nanimals\n")
    capsys.readouterr()
    assert main(["predict", f"run={tmp_path}/out", f"path={tmp_path}/b.csv"]) == 2
    assert "b.csv has no column 'text'; it has 'about'" in capsys.readouterr().err
