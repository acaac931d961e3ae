"""Runs that begin with the weights of another, and parts of a model that are left as they are."""

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attelbo.cli import main
from attelbo.experiments.configuration import compose
from attelbo.experiments.rundir import RunDirectory, config_hash
from attelbo.files import read_metrics
from attelbo.models import load_run
from attelbo.training.stepping import BlockStepper
from equal_runs import assert_equal_runs

# An epoch has 5 minibatches in 3 blocks.
SMALL = (
    *("data=digits", "model=vae", "model/encoder=mlp", "model/decoder=mlp", "model.latent_dim=4"),
    *("model.encoder.hidden=[9,8]", "model.decoder.hidden=[8]", "model.encoder.batch_norm=true"),
    *("data.train_size=100", "data.batch_size=20", "data.minibatches_per_block=2", "callbacks=checkpoint"),
    *("trainer.threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=3"),
    *("evaluation.n_images=3", "evaluation.n_samples=2"),
)


def small(*words: str) -> list[str]:
    """The words of a small run; of two for the same key the later counts."""
    return list({word.partition("=")[0]: word for word in (*SMALL, *words)}.values())


def trained(folder: Path, *words: str) -> Path:
    assert main(["train", *small(f"paths.output_dir={folder}", *words)]) == 0
    (run,) = (folder / "digits").iterdir()
    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("source"))


def checkpoint(run: Path, which: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)


def weights(run: Path, which: str = "last") -> dict[str, Tensor]:
    return checkpoint(run, which)["state_dict"]


def test_what_is_frozen_stays_as_it_was_and_the_rest_moves(source, tmp_path, capsys):
    run = trained(tmp_path, "seed=5", f"init.run={source}", "init.only=[encoder]", "init.freeze=[encoder]")
    assert f"of {source}/checkpoints/best.ckpt: encoder; new: " in capsys.readouterr().out
    before, after = weights(source, "best"), weights(run)
    encoder = [name for name in after if name.startswith("encoder.")]
    assert any("running_mean" in name for name in encoder)
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    moved = [name for name in after if name.startswith(("decoder.", "posterior.")) and "num_batches" not in name]
    assert len(moved) > 5
    assert not any(torch.equal(before[name], after[name]) for name in moved)
    # The optimizer knows of nothing else.
    model, _ = load_run(run)
    n = sum(1 for name, _ in model.named_parameters() if not name.startswith("encoder."))
    assert sum(len(group["params"]) for group in checkpoint(run)["optimizer_states"][0]["param_groups"]) == n
    begun = json.loads((run / "provenance.json").read_text())["init"]
    file = source / "checkpoints" / "best.ckpt"
    assert begun == {
        "checkpoint": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "taken": sorted(encoder),
    }


def test_a_warm_start_is_where_the_other_run_was(source, tmp_path):
    """Nothing moves where the learning rate is 0 and running means are frozen: the first validation is the other's."""
    run = trained(tmp_path, f"init.run={source}", "init.freeze=[encoder]", "optimizer.lr=0.0", "trainer.max_epochs=1")
    ((_, first),) = read_metrics(run / "metrics.csv")["val/elbo"]
    best = max(value for _, value in read_metrics(source / "metrics.csv")["val/elbo"])
    assert first == pytest.approx(best, rel=1e-6)
    assert (
        json.loads((run / "result.json").read_text())["parameters"]
        < json.loads((source / "result.json").read_text())["parameters"]
    )


@pytest.mark.parametrize("block", [2, 5])
def test_a_resumed_run_does_not_begin_again(source, tmp_path, monkeypatch, capsys, block):
    """Interrupted within the first epoch, where there is no checkpoint yet but the one of SIGTERM, and in the second;
    the source is gone by then."""
    given = shutil.copytree(source, tmp_path / "given")
    words = (f"init.run={given}", "init.freeze=[decoder]", "seed=2")
    whole = trained(tmp_path / "whole", *words)
    step = BlockStepper.__call__

    def call(self: BlockStepper, rows: Any) -> None:
        step(self, rows)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == block:
            signal.raise_signal(signal.SIGTERM)

    again = ["train", *SMALL, f"paths.output_dir={tmp_path / 'parts'}", *words, "ckpt=auto"]
    with monkeypatch.context() as patch:
        patch.setattr(BlockStepper, "__call__", call)
        assert main(again) == 143
    shutil.rmtree(given)
    capsys.readouterr()
    assert main(again) == 0
    assert "begins with" not in capsys.readouterr().out
    (parts,) = (tmp_path / "parts" / "digits").iterdir()
    assert_equal_runs(parts, whole)
    records = [RunDirectory(run).read("provenance.json") or {} for run in (parts, whole)]
    assert records[0]["init"] == records[1]["init"]


# -- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["init.only=[encodr]"],
            "init.only: VariationalAutoencoder has no part 'encodr'; did you mean encoder? (there",
        ),
        (
            ["init.freeze=[encoder,decoder,posterior]"],
            "init.freeze=[encoder,decoder,posterior] leaves nothing to train\n",
        ),
        (
            ["model/objective=vae_gan", "init.freeze=[decoder]"],
            "init.freeze=[decoder] leaves nothing to train for 1 of the 3 optimizers that take turns",
        ),
        (["init.freeze=[encoder]", "trainer.replicas=2"], "init.freeze: replicas train all of their weights: trainer."),
        (["ckpt=last.ckpt"], "ckpt goes on with another training, init.run begins one with its weights: give one"),
        (["init.checkpoint=average"], "has no checkpoint in checkpoints/ (average)"),
    ],
)
def test_what_cannot_begin_is_one_line(source, words, message, capsys):
    assert main(["check", *SMALL, f"init.run={source}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_of_another_shape_are_named(source, capsys):
    words = [word.replace("latent_dim=4", "latent_dim=5") for word in SMALL]
    assert main(["check", *words, f"init.run={source}"]) == 2
    error = capsys.readouterr().err
    assert "posterior." in error
    assert "here and" in error
    assert "init.only=[...] takes parts that fit" in error
    assert main(["check", *words, f"init.run={source}", "init.only=[encoder]"]) == 0
    assert "begins with" in capsys.readouterr().out


def test_a_run_that_is_not_there_and_parts_of_none(tmp_path, capsys):
    assert main(["check", *SMALL, f"init.run={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: init.run: {tmp_path} is no run directory")
    assert main(["check", *SMALL, "init.only=[encoder]"]) == 2
    assert capsys.readouterr().err.startswith("error: init.only names parts of another run, and there is none")


def test_a_configuration_that_begins_with_nothing_is_the_one_it_was():
    """Runs from before there was ``init`` are found by their configuration."""
    config = compose("train", SMALL).config
    before = {key: value for key, value in config.items() if key != "init"}
    assert config_hash(config) == config_hash(before)
    assert config_hash({**config, "init": {"run": None, "freeze": ["encoder"]}}) != config_hash(before)
    assert config_hash({**config, "init": {"run": "x"}}) != config_hash(before)


# -- texts -------------------------------------------------------------------------------------------------

TEXT = (
    *(
        "data=text",
        "data/tokenizer=characters",
        "model=gpt",
        "model.dim=8",
        "model.attention.heads=2",
        "model.network.layers=1",
    ),
    *("data.context=8", "data.batch_size=8", "trainer.threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
    *("callbacks=checkpoint",),
)


def test_tokens_are_those_of_the_run_whose_vectors_are_taken(tmp_path, capsys):
    (tmp_path / "abc.txt").write_text("abcd efgh " * 60)
    (tmp_path / "few.txt").write_text("abba deaf " * 60)
    (tmp_path / "other.txt").write_text("xyz abc " * 60)

    def words(name: str) -> list[str]:
        return [*TEXT, f"data.source.path={tmp_path / name}.txt", f"paths.output_dir={tmp_path / name}"]

    assert main(["train", *words("abc")]) == 0
    (source,) = (tmp_path / "abc").glob("*/*")
    assert main(["train", *words("few"), f"init.run={tmp_path / 'abc'}", "init.freeze=[embedding]"]) == 0
    (run,) = (tmp_path / "few").glob("*/*")
    assert (run / "vocabulary.json").read_text() == (source / "vocabulary.json").read_text()
    before, after = weights(source, "best"), weights(run)
    assert torch.equal(before["embedding.vectors.weight"], after["embedding.vectors.weight"])
    capsys.readouterr()
    assert main(["train", *words("other"), f"init.run={source}"]) == 2
    assert (
        "characters that are not among the 9 of the vocabulary: 'x' (U+0078), 'y' (U+0079), 'z' (U+007A)"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other").exists()
    of_words = [word.replace("=characters", "=words") for word in words("few")]
    assert main(["check", *of_words, f"init.run={source}"]) == 2
    assert "error: data.tokenizer: the tokens of" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "abc")  # what a run goes on with, it has itself
    capsys.readouterr()
    assert main(["train", *words("few"), f"init.run={tmp_path / 'abc'}", "init.freeze=[embedding]", "ckpt=auto"]) == 0
    assert f"{run} is done already" in capsys.readouterr().out
