"""Text VAEs by command: a run, its texts, and what is said where there are no images."""

import json
import math
import re

import pytest
import torch

from attelbo.cli import main
from attelbo.data import SentenceDataModule
from attelbo.data.loader import spread_rows
from attelbo.experiments import run
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.perplexity import evaluate_perplexity
from attelbo.experiments.report import write_report
from attelbo.experiments.settings import Evaluation
from attelbo.models import TextVAE, load_run

WORDS = (
    *("~experiment", "model=text_vae", "model.embedding=16", "model.hidden=16", "model.latent_dim=3", "name=texts"),
    *("data=reference_sentences", "data.train_size=200", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
    *("trainer.threads=1", "evaluation.n_samples=3", "evaluation.n_images=7", "callbacks=default"),
    *("callbacks.sentences.n=3", "callbacks.sentences.n_paths=1", "callbacks.sentences.steps=3", "logger=none"),
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    from conftest import Runs

    runs = Runs(tmp_path_factory.mktemp("texts"))
    config = runs.compose([*WORDS, f"paths.output_dir={runs.folder}"])
    outcome = run.train(config, list(WORDS), {}, None)
    assert outcome.state == "done"
    return outcome.run_dir


def test_a_perplexity_that_no_float_holds_is_infinite(run_dir) -> None:
    """After a learning rate that was far too high the loss is finite, and all of a training ended in a traceback."""
    model, data = load_run(run_dir)
    assert isinstance(model, TextVAE)
    found = evaluate_perplexity(model, data, Conditions("test", Evaluation(n_samples=1, n_images=7)), 1e6)
    assert found == {"test/perplexity": math.inf}


def printed(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_what_a_run_is_measured_by(run_dir) -> None:
    result = json.loads((run_dir / "result.json").read_text())
    metrics = result["metrics"]
    names = {name.removeprefix("test/") for name in metrics if name.startswith("test/")}
    assert names >= {
        *("elbo", "kl", "reconstruction", "nll", "nll_std_error", "active_units", "mutual_information", "aggregate_kl"),
        *("kl_per_token", "perplexity", "perplexity_bound", "tokens"),
    }
    assert "bits_per_dim" not in names
    assert metrics["test/kl_per_token"] == pytest.approx(metrics["test/kl"] / metrics["test/tokens"])
    # The NLL is that of 7 texts, and so are the tokens that its perplexity is of.
    _, data = load_run(run_dir)
    x = data.materialize(spread_rows(7, data.n_rows("test")), "test").x
    n_tokens = (x[:, 1:] != 0).sum() / 7
    assert metrics["test/perplexity"] == pytest.approx(math.exp(metrics["test/nll"] / n_tokens))
    labels = [measure[1] for measure in result["measures"]]
    assert labels[:3] == ["NLL", "perplexity", "ELBO"]


def test_texts_that_are_measured_together_are_similarly_long(run_dir) -> None:
    _, data = load_run(run_dir)
    settings = Evaluation(n_samples=3, n_images=7, batch_size=2, chunk=None, checkpoint="best")
    spread = spread_rows(7, data.n_rows("test"))
    rows = torch.cat([*Conditions("test", settings).rows(data)])
    lengths = [int((data.materialize(row, "test").x != 0).sum()) for row in rows.split(1)]
    assert sorted(rows.tolist()) == spread.tolist()
    assert lengths == sorted(lengths)
    assert rows.tolist() != spread.tolist()


def test_its_texts_are_in_media_and_in_the_report(run_dir) -> None:
    samples, reconstructions, paths = (
        (run_dir / "media" / f"{name}.txt").read_text() for name in ("samples", "reconstructions", "interpolations")
    )
    assert len(samples.splitlines()) == 3
    named = [line.split(maxsplit=1)[0] for line in reconstructions.splitlines() if line]
    assert named == ["text", "reconstruction"] * 3
    assert [line.split(maxsplit=1)[0] for line in paths.splitlines()] == ["from", "0.00", "0.50", "1.00", "to"]
    assert (run_dir / "media" / "latent_map.png").is_file()
    page = write_report(run_dir).read_text()
    assert "Interpolations" in page
    assert "the likeliest tokens at its posterior mean" in page


def test_samples_are_drawn_and_written(run_dir, capsys) -> None:
    out = printed(capsys, "sample", f"run={run_dir}", "n=4", "seed=3", "temperature=0.7", "top_k=20")
    file = run_dir / "media" / "samples-n4-seed3-temperature0.7-top_k20.txt"
    assert len(file.read_text().splitlines()) == 4
    assert file.read_text() in out
    again = printed(capsys, "sample", f"run={run_dir}", "n=4", "seed=3", "temperature=0.7", "top_k=20")
    assert again == out
    assert len(printed(capsys, "sample", f"run={run_dir}").splitlines()) == 11


def test_reconstructions_are_the_models(run_dir, capsys) -> None:
    out = printed(capsys, "reconstruct", f"run={run_dir}", "n=3", "split=validation")
    model, data = load_run(run_dir)
    assert isinstance(model, TextVAE)
    size = data.n_rows("validation")
    x = data.materialize(torch.arange(3) * size // 3, "validation").x
    tokenizer = data.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    pairs = zip(x.tolist(), model.reconstruct(x).tolist(), strict=True)
    expected = [
        f"{name}  {tokenizer.decode(row)}"
        for both in pairs
        for name, row in zip(("          text", "reconstruction"), both, strict=True)
    ]
    assert [line for line in out.splitlines() if line][:-1] == [line.rstrip("\n") for line in expected]


def test_the_ends_of_a_path_are_reconstructions(run_dir, capsys) -> None:
    out = printed(capsys, "interpolate", f"run={run_dir}", "n=2", "steps=4", "seed=1")
    blocks = [
        dict(line.split("  ", 1) for line in map(str.lstrip, block.splitlines()[:6])) for block in out.split("\n\n")
    ]
    assert [list(block) for block in blocks] == [["from", "0.00", "0.33", "0.67", "1.00", "to"]] * 2
    model, data = load_run(run_dir)
    tokenizer = data.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    data.setup()
    test = data.materialize(torch.arange(data.n_rows("test")), "test").x
    written = {tokenizer.decode(row.tolist()): row[row != 0] for row in test}
    for block in blocks:
        for text, end in (("from", "0.00"), ("to", "1.00")):
            reconstruction = model.reconstruct(written[block[text]].unsqueeze(0))[0]
            assert tokenizer.decode(reconstruction.tolist()) == block[end]


def test_a_path_goes_from_one_typed_text_to_another_without_data(run_dir, capsys, monkeypatch) -> None:
    def no_data(self) -> None:
        raise AssertionError

    monkeypatch.setattr(SentenceDataModule, "setup", no_data)
    ends = "this is a list .", "The name, if any, is not a string."
    out = printed(capsys, "interpolate", f"run={run_dir}", "steps=3", f"start={ends[0]}", f"end={ends[1]}")
    (file,) = (run_dir / "media").glob("interpolation-typed-start*-end*-steps3.txt")
    assert out.startswith(file.read_text())
    lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()]
    assert [line[0] for line in lines] == ["from", "0.00", "0.50", "1.00", "to"]
    assert (lines[0][1], lines[-1][1]) == (ends[0], "the name , if any , is not a string .")
    model, data = load_run(run_dir)
    assert isinstance(data, SentenceDataModule)
    assert isinstance(model, TextVAE)
    centers = [model.encode(torch.tensor([data.read(text)])) for text in ends]
    for line, position in zip(lines[1:4], (0, 0.5, 1), strict=True):
        written = model.generate(torch.lerp(*centers, position))[0]
        assert data.tokenizer.decode(written.tolist()) == " ".join(line[1:])


def test_embeddings_are_rows_of_posterior_means(run_dir, capsys) -> None:
    printed(capsys, "embed", f"run={run_dir}", "n=9")
    head, *rows = (run_dir / "media" / "embedding-test-n9.csv").read_text().splitlines()
    assert head == "row,x,y,z1,z2,z3"
    assert len(rows) == 9


def test_a_run_is_measured_again(run_dir, capsys) -> None:
    out = printed(capsys, "evaluate", f"run={run_dir}", "split=validation", "n_samples=2", "n_images=5")
    assert "2 importance samples, 5 texts" in out
    assert "KL per token" in out
    metrics = json.loads((run_dir / "evaluation-validation.json").read_text())["metrics"]
    assert metrics["val/perplexity"] > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("traverse",), "no images to draw; interpolate writes the texts between two"),
        (("sample", "prompt=a"), "prompt=a: .*: its texts begin as z has it"),
        (("sample", "length=3"), "length=3: .*: its texts begin as z has it"),
        (("sample", "truncate=true"), "truncate=true: .*: its texts begin as z has it"),
        (("sample", "top_p=0.0"), r"top_p must be in \(0, 1\], got 0.0"),
        (("interpolate", "n=100"), "n: 100 pairs take 200 texts, test has 1"),
        (("interpolate", "start=this is a list ."), "^error: start and end: a path has both, one was given"),
        (
            ("interpolate", "start=this is it .", "end=this is Zaphod ."),
            "^error: 'this is Zaphod .' is not all in the vocabulary of .*: the model would read 'this is <unk> .'$",
        ),
        (
            ("interpolate", f"start={'a ' * 79}", "end=a"),
            r"^error: 'a a .*' has 81 tokens, BOS and EOS among them; the model was built for 80 \(data.max_length\)",
        ),
        (("evaluate", "quality=true"), "no latent variables of images"),
        (("fit-prior", "prior=maf"), "has no prior that could be fitted afterwards"),
    ],
)
def test_what_there_is_not_is_told_in_a_line(run_dir, capsys, words, told) -> None:
    command, *rest = words
    assert main([command, f"run={run_dir}", *rest]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert len(error.strip().splitlines()) == 1
