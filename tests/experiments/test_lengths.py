"""Rows of other lengths: the same tokens, the same weights, and what a longer table of positions would have said."""

import csv
import io
import json

import pytest
import torch
from torch.nn import functional as F

from attelbo.cli import main
from attelbo.data import IGNORE
from attelbo.experiments import run
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.lengths import evaluate_lengths, of_length
from attelbo.experiments.settings import Evaluation

CPU = torch.device("cpu")
TEXT = "".join(f"{i}. The line of number {i} is here, and {i * i} is its square.\n\n" for i in range(60))
TINY = ("model=gpt", "model.dim=16", "model.attention.heads=2", "model.network.layers=1", "trainer.max_epochs=1")
pytestmark = pytest.mark.usefixtures("one_session")

WITHOUT = ("data.train_size=100", "data.validation_size=40")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "input.txt"
    path.write_text(TEXT)
    return "data=text", "data/tokenizer=characters", f"data.source.path={path}", "data.context=16", *TINY


@pytest.fixture(scope="module")
def assembled(shared_runs, text):
    def make(*words):
        config = shared_runs.configure(*text, *words, without=WITHOUT)
        return *run.assemble(config), config

    return make


def everything(data, split):
    return data.materialize(torch.arange(data.n_rows(split)), split)


SEPARATED = r'data.source.separator="\n\n"'
DOCUMENTS = {
    "stream": (),
    "packed": ("data.documents=packed", SEPARATED),
    "padded": ("data.documents=padded", "data.windows=consecutive", SEPARATED),
}


@pytest.mark.parametrize("documents", DOCUMENTS)
@pytest.mark.parametrize("split", ["trained", "test"])
def test_all_lengths_predict_the_same_tokens(assembled, documents, split):
    _, data, _ = assembled(*DOCUMENTS[documents])
    expected = everything(data, split).y
    for length in (5, 16, 40):
        resized = data.at_length(length, split)
        y = everything(resized, split).y
        assert y.shape[1] <= length
        assert torch.equal(y[y != IGNORE], expected[expected != IGNORE])
    assert data.length == 16
    assert data.spec.shape == (16,)


@pytest.mark.parametrize(
    "position", ["alibi", "contextual", "continuous_bias", "relative_bias", "rope", "sinusoidal", "xpos", "none"]
)
@torch.no_grad()
def test_longer_rows_are_read_as_if_there_had_been_places_for_them(assembled, position):
    """A model that was told of 64 places from the start says the same of 64 tokens."""
    told, data, config = assembled(f"model/position={position}", "model.context=64", "model.attention.dropout=0")
    x = everything(data.at_length(64, "test"), "test").x[:2]
    assert x.shape == (2, 64)
    other, resized = of_length(told.eval(), config, data, 64, None, "test")
    assert other is not told
    assert resized.spec.shape == (64,)
    torch.testing.assert_close(other.eval()(x), told(x), atol=2e-5, rtol=1e-5)
    assert of_length(told, config, data, 7, None, "test")[0] is told


@torch.no_grad()
def test_the_loss_is_that_of_a_loop_over_windows(assembled):
    model, data, config = assembled("model/position=alibi")
    model.eval()
    settings = Evaluation(1, batch_size=7, lengths=[16, 50])
    found = evaluate_lengths(model, data, Conditions("test", settings), config)
    tokens = torch.tensor(data.tokenizer.encode(TEXT[int(len(TEXT) * 0.9) :]))
    for row in found.rows:
        nats = []
        for start in range(0, len(tokens) - 1, int(row["length"])):
            window = tokens[start : start + int(row["length"]) + 1]
            logits = model(window[:-1].unsqueeze(0))[0].double()
            nats += F.cross_entropy(logits, window[1:], reduction="none").tolist()
        assert row["tokens"] == len(nats) == len(tokens) - 1
        assert row["loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert found.rows[0]["loss"] != found.rows[1]["loss"]


def test_stretched_places_lie_between_those_that_were_trained_on(assembled):
    model, data, config = assembled("model/position=rope")
    other, _ = of_length(model, config, data, 64, "places", "test")
    places, trained = other.embedding.position, model.embedding.position
    torch.testing.assert_close(places.cosine[::4], trained.cosine)
    torch.testing.assert_close(places.sine[::4], trained.sine)
    other, _ = of_length(model, config, data, 64, "base", "test")
    base = other.embedding.position
    angle, slow = (
        torch.arange(16.0),
        10_000.0 ** (-3 / 4),
    )  # of 4 pairs the first turns as before, the last 4 times slower
    torch.testing.assert_close(base.cosine[:16, 0], angle.cos())
    torch.testing.assert_close(base.cosine[:16, 3], (angle * slow / 4).cos())
    shorter, _ = of_length(model, config, data, 8, "base", "test")
    assert shorter is model


@pytest.mark.parametrize("length", [3, 6, 9])
@torch.no_grad()
def test_an_answer_of_another_length_is_asked_for_as_a_whole(shared_runs, length):
    config = shared_runs.configure("data=sort", *TINY, "model/position=alibi", "data.test_size=50")
    model, data = run.assemble(config)
    settings = Evaluation(1, batch_size=20, lengths=[length])
    found = evaluate_lengths(model.eval(), data, Conditions("test", settings), config)
    (row,) = found.rows
    batch = everything(data.at_length(length, "test"), "test")
    assert batch.x.shape == (50, 2 * length - 1)
    right = model(batch.x).argmax(-1)[:, length - 1 :] == batch.x[:, :length].sort(1).values
    assert row["tokens"] == 50 * length
    assert row["accuracy"] == pytest.approx(float(right.double().mean()), abs=1e-6)
    assert row["exact"] == pytest.approx(float(right.all(1).double().mean()), abs=1e-6)


# -- the commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(shared_runs, text):
    words = (*text, "model/position=rope", "data.windows_per_epoch=40", "evaluation.lengths=[16,8,32]")
    config = shared_runs.configure(*words, without=WITHOUT)
    return run.train(config, list(words), {}, None).run_dir


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_a_training_ends_with_a_row_for_each_length(trained):
    result = json.loads((trained / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["test/loss_at_16"] == metrics["test/loss"]
    rows = table(trained / "media" / "lengths.csv")
    assert [row["length"] for row in rows] == ["16", "8", "32"]
    assert len({row["tokens"] for row in rows}) == 1
    for row in rows:
        for name in ("loss", "perplexity", "accuracy", "bits_per_character"):
            assert float(row[name]) == pytest.approx(metrics[f"test/{name}_at_{row['length']}"], rel=1e-6)
    assert (trained / "media" / "lengths.png").stat().st_size > 5000
    assert [measure[1] for measure in result["measures"]][-3:] == ["loss at 16", "loss at 8", "loss at 32"]
    assert result["seconds"]["lengths"] > 0
    # Each window to train on has 16 tokens.
    assert result["tokens_per_second"] == pytest.approx(16 * result["samples_per_second"])


def test_evaluate_finds_the_same_again(trained, capsys):
    words = ["evaluate", f"run={trained}", "accelerator=cpu", "lengths=[32,8]"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    rows = {row["length"]: row for row in table(trained / "media" / "lengths-test.csv")}
    before = {row["length"]: row for row in table(trained / "media" / "lengths.csv")}
    assert rows == {length: before[length] for length in ("32", "8")}
    assert f"{float(rows['32']['loss']):.4f}" in printed
    assert f"perplexity {float(rows['32']['perplexity']):.3f}" in printed
    assert main([*words, "stretched=places", "split=train"]) == 0
    stretched = {row["length"]: row for row in table(trained / "media" / "lengths-train-places.csv")}
    assert int(stretched["32"]["tokens"]) > int(rows["32"]["tokens"])
    assert main(["compare", str(trained), "--metric", "loss_at_32"]) == 0
    assert "loss at 32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            (*TINY, "data=reference_text", "evaluation.lengths=[128]"),
            "evaluation.lengths=128: this model has weights for 64 places",
        ),
        (
            ("model=vae", "evaluation.lengths=[128]"),
            "evaluation.lengths=128: rows of another length are for models of tokens",
        ),
        ((*TINY, "data=sort", "evaluation.lengths=[4,0]"), "evaluation.lengths must be at least 1, got 0"),
        (("data=sort", *TINY, "evaluation.stretched=base"), "evaluation.stretched is of rows of other lengths"),
        (
            ("data=sort", *TINY, "evaluation.stretched=base", "evaluation.lengths=[9]"),
            "evaluation.stretched=base: only rotary positions are",
        ),
        (
            ("data=associative_recall", *TINY, "model/position=rope", "evaluation.lengths=[33]"),
            "evaluation.lengths=33: length must be even, got 33",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_such_length_is_told_in_one_line(words, told, capsys):
    assert main(["check", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1
